"""One generation batch of one rank, as text, and what is counted about it.

A rollout makes it, and nobody changes it. `number` is the place of a sequence among all that were
scored: the rollouts of phase 1 first, then the sequences of phase 2. `row` is a place in TRL's
batch.

| field          | written by station            | read by station                                 |
|----------------|-------------------------------|-------------------------------------------------|
| group_rollouts | 1 reserve                     | 9 right siblings; table of rollouts             |
| attempts       | 2 sample, 3 judge             | 5 critique, 6 refine prompt, 9 contexts; counts |
| critiques      | 4 failed, 5 critique          | 6 refine prompt, 9 contexts; counts             |
| turn_critiques | 4, 5 in turns after the first | counts; table of rollouts                       |
| refinements    | 7 candidates, 8 chosen        | 9 contexts; counts                              |
| plain          | 7 candidates                  | counts; table of rollouts                       |
| order          | 8 fill slots                  | 9 contexts, baseline of rollouts                |
| refined        | 8 fill slots                  | 9 refine credit, contexts, normalisers          |
| off_policy     | 8 fill slots                  | 9 credit, normalisers                           |
| verdicts       | 3 judge, 7, put in order by 8 | 9 credit, contexts, faulty tokens; counts       |
| values         | 3 judge, 7                    | 9 baseline of rollouts; table of rollouts       |
| rewards        | 3 judge, 7, put in order by 8 | TRL's advantages                                |
| columns        | 8 fill slots                  | TRL's batch                                     |
| counts         | 5, 7; the trainer adds 9      | metrics and tokens by owner                     |

Counters add up over ranks and steps; metrics are made from their sums:
failed rollouts = critiques ok + cached + failed + skipped + not asked, each failure and skip with a
reason. With several turns the failed refinements that a further turn might refine stand on the left
side too. Under `critique_share` those not asked about have a reason each, and due = asked + those
with a reason other than `not_due`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from critique_rl.tasks.judging import LOST_PREFIX, count_lost, reason_name
from critique_rl.tasks.messages import question_of, text_of
from critique_rl.trainer.rollout.sampled import Row
from critique_rl.trainer.rollout.scoring import Judged
from critique_rl.types import Attempt, Critique, Refinement, Verdict

Counts = Counter[str]
"""Name of a counter -> count, or seconds, or dollars."""
Critiques = dict[int, Critique]
"""Index of an attempt -> its critique."""
TURN_PREFIX = "refine/turn/"
"""Begins the names of counters of one turn."""


class NumberedRefinement(NamedTuple):
    """A refinement that was sampled as a candidate for a reserved row."""

    attempt: int
    """Index of the rollout that its chain begins with: in turn 1 it refines that one, in a later
    turn the refinement of the turn before.
    """
    number: int
    """Its own number among all that were scored."""
    refinement: Refinement


class PlainSample(NamedTuple):
    """A sequence of phase 2 that refines nothing: a plain sample, or an expert's trace."""

    group: int
    """Index of its group on this rank."""
    number: int
    """Its number among all that were scored."""
    role: str
    """"rollout" or "expert"."""
    attempt: Attempt


@dataclass(frozen=True)
class Generation:
    """One generation batch of this rank. The module's table says who writes and reads a field."""

    group_rollouts: int = 1
    """Rollouts of phase 1 per group."""
    attempts: list[Attempt] = field(default_factory=list)
    """The rollouts of phase 1, group by group."""
    critiques: Critiques = field(default_factory=dict)
    """Index of an attempt -> its critique, for attempts that were due one."""
    turn_critiques: Critiques = field(default_factory=dict)
    """Number of a failed refinement -> its critique, of turns after the first."""
    refinements: list[NumberedRefinement] = field(default_factory=list)
    """All candidates of the reserved rows that refine an attempt."""
    plain: list[PlainSample] = field(default_factory=list)
    """All other sequences of phase 2."""
    order: list[int] = field(default_factory=list)
    """Number of the sequence that each row of the batch holds."""
    values: list[float] = field(default_factory=list)
    """Weighted reward of every number; NaN where it could not be judged."""
    rewards: Tensor | None = None
    """(B, F) of F reward functions in the order of rows; NaN for those that compare a group, which
    the trainer calls later. None where TRL itself scored the batch.
    """
    refined: list[int] = field(default_factory=list)
    """Rows that hold a chosen refinement or an expert's trace."""
    off_policy: list[int] = field(default_factory=list)
    """Rows that hold a candidate nobody chose (unscored, or dropped): they train nothing."""
    verdicts: list[Verdict] = field(default_factory=list)
    """Verdict of every row."""
    columns: dict[str, Any] = field(default_factory=dict)
    """What TRL's `rollout_func` returns: prompt_ids, completion_ids and logprobs of every row."""
    counts: Counts = field(default_factory=Counter)
    """Counters of this rank. Those of `count_generation` are in it once the trainer is done."""

    def refined_rows(self, device: torch.device) -> Tensor:
        """(B,) bool: rows that hold a chosen refinement or an expert's trace."""
        return self._mask(self.refined, device)

    def rollout_rows(self, device: torch.device) -> Tensor:
        """(B,) bool: rows that hold a rollout, sampled under the question alone."""
        return ~self._mask(self.refined + self.off_policy, device)

    def right_rows(self, device: torch.device) -> Tensor:
        """(B,) bool: rows whose verdict is right."""
        right = [is_right(verdict) for verdict in self.verdicts]
        return torch.tensor(right, device=device)

    def failed_rows(self, device: torch.device) -> Tensor:
        """(B,) bool: rows whose verdict is wrong or unreadable."""
        failed = [verdict.failed for verdict in self.verdicts]
        return torch.tensor(failed, device=device)

    def _mask(self, rows: Sequence[int], device: torch.device) -> Tensor:
        """(B,) bool: True at these rows."""
        size = len(self.order)
        mask = torch.zeros(size, dtype=torch.bool, device=device)
        mask[list(rows)] = True
        return mask


def is_right(verdict: Verdict) -> bool:
    return verdict.outcome == "right"


def make_attempts(
    rows: Sequence[Row],
    completions: Sequence[Any],
    verdicts: Sequence[Verdict],
    truncated: Sequence[bool],
) -> list[Attempt]:
    """Attempts of judged completions, each with the dataset's row that it answers."""
    attempts = []
    for row, completion, verdict, cut in zip(rows, completions, verdicts, truncated, strict=True):
        question = question_of(row["prompt"])
        attempts.append(Attempt(question, text_of(completion), verdict, row, cut))
    return attempts


def plain_generation(
    rows: Sequence[Row],
    prompts: Sequence[Any],
    completions: Sequence[Any],
    completion_ids: Sequence[Sequence[int]],
    judged: Judged,
    truncated: Sequence[bool],
    group_size: int,
) -> Generation:
    """The record of a batch that TRL sampled and scored, in which every row is a rollout.

    Args:
        rows: the dataset's row of each completion.
        prompts: the prompt of each completion. An environment may have written it.
        completions: this rank's completions.
        completion_ids: their token ids.
        judged: their judgement.
        truncated: whether each ended at the limit of tokens.
        group_size: rows per group.
    """
    tokens = sum(len(ids) for ids in completion_ids)
    asked_rows = [{**row, "prompt": p} for row, p in zip(rows, prompts, strict=True)]
    return Generation(
        group_rollouts=group_size,
        attempts=make_attempts(asked_rows, completions, judged.verdicts, truncated),
        order=list(range(len(completions))),
        values=judged.values,
        verdicts=judged.verdicts,
        counts=Counter({"tokens/rollout": tokens}),
    )


def turn_counter(turn: int, name: str) -> str:
    """Name of a counter of one turn."""
    return f"{TURN_PREFIX}{turn}/{name}"


# ---- counters of one rank ------------------------------------------------------------------------


def count_generation(batch: Generation, group_size: int, slots: int) -> Counts:
    """Counters of one rank's generation batch.

    Args:
        batch: the batch.
        group_size: rows per group, reserved ones included.
        slots: reserved rows per group.
    """
    counts: Counts = Counter()
    for critique in batch.critiques.values():
        counts.update(_count_critique(critique))
    for critique in batch.turn_critiques.values():
        counts.update(_count_critique(critique))
    for _, _, refinement in batch.refinements:
        counts.update(_count_refinement(refinement))
    for sample in batch.plain:
        if sample.role == "expert":
            counts["refine/experts"] += 1
            counts["refine/right_experts"] += is_right(sample.attempt.verdict)
    counts.update(_count_signal(batch, group_size, slots))
    counts.update(_count_attempts(batch.attempts))
    verdicts = [attempt.verdict for attempt in batch.attempts]
    verdicts += [refinement.verdict for _, _, refinement in batch.refinements]
    for name, count in count_lost(verdicts).items():
        counts[f"{LOST_PREFIX}{name}"] += count
    # `+` drops counters of 0, so that nothing is logged of what did not happen.
    return +counts


def _count_critique(critique: Critique) -> Counts:
    counts: Counts = Counter()
    status = critique.status
    if critique.cached and status == "ok":
        counts["critique/cached"] += 1
    else:
        counts[f"critique/{status}"] += 1
    counts["critique/leaked"] += critique.leaked
    counts.update(count_usage(critique))
    if critique.reason:
        # Without a server's words, which may hold the time or a number: a metric is averaged over
        # many steps, and there must be few names.
        counts[f"critique/{status}/{reason_name(critique.reason)}"] += 1
    counts.update(f"critique/{reason_name(note)}" for note in critique.notes)
    return counts


def count_usage(critique: Critique) -> Counts:
    """Counters of what a critique cost."""
    usage = critique.usage
    counts: Counts = Counter()
    counts["tokens/critic_prompt"] = usage.prompt_tokens
    counts["tokens/critic_completion"] = usage.completion_tokens
    # A Counter adds fractions too; its type says int.
    counts["critique/usd"] = usage.usd  # type: ignore[assignment]
    counts["critique/usage_estimated"] = usage.estimated
    counts["critique/excess_tokens"] = usage.excess_tokens
    return counts


def _count_refinement(refinement: Refinement) -> Counts:
    right = is_right(refinement.verdict)
    family = refinement.attempt.row.get("family")
    counts: Counts = Counter()
    counts["refine/candidates"] = 1
    counts["refine/right"] = int(right)
    counts["refine/chosen"] = int(refinement.chosen)
    counts[f"refined/{family}"] = 1
    counts[f"rescued/{family}"] = int(right)
    return counts


def _count_signal(batch: Generation, group_size: int, slots: int) -> Counts:
    """Groups in which advantages differ, before and after the reserved rows were filled."""
    counts: Counts = Counter()
    rights = [is_right(verdict) for verdict in batch.verdicts]
    for start in range(0, len(rights), group_size):
        group = rights[start : start + group_size]
        rollouts = group[: group_size - slots]
        failed = not any(rollouts)
        counts["groups"] += 1
        counts["groups/before"] += len(set(rollouts)) == 2
        counts["groups/after"] += len(set(group)) == 2
        counts["groups/failed"] += failed
        counts["groups/rescued"] += failed and any(group)
    return counts


def _count_attempts(attempts: Sequence[Attempt]) -> Counts:
    counts: Counts = Counter()
    for attempt in attempts:
        family = attempt.row.get("family")
        outcome = attempt.verdict.outcome
        counts[f"family/{family}"] += 1
        counts[f"family_right/{family}"] += is_right(attempt.verdict)
        counts[f"outcome/{outcome}"] += 1
        counts[f"outcome/{outcome}/truncated"] += attempt.truncated
        if outcome == "unscored" and attempt.verdict.reason:
            counts[f"outcome/unscored/{reason_name(attempt.verdict.reason)}"] += 1
    return counts


# ---- metrics of all ranks ------------------------------------------------------------------------

RATES = {
    "refine/rescue_rate": ("refine/right", "refine/candidates"),
    "refine/groups_rescued": ("groups/rescued", "groups/failed"),
    "critique/asked_share": ("critique/asked", "critique/due"),
    "critique/signal_before": ("groups/before", "groups"),
    "critique/signal_after": ("groups/after", "groups"),
}
"""Metric -> the counters above and below its fraction line."""
FAMILY_RATES = {
    "family/": ("rollout/right/", "family_right/"),
    "refined/": ("refine/rescue_rate/", "rescued/"),
}
"""Prefix of a family's denominator -> prefixes of its metric and of its numerator."""
REFINE_COUNTS = (
    "refine/candidates",
    "refine/chosen",
    "refine/mentions",
    "refine/experts",
    "refine/right_experts",
    "refine/traces_missing",
    "refine/traces_too_long",
    "refine/swapped",
    "refine/unmatched",
)


def generation_counts(total: Counts) -> dict[str, float]:
    """Metrics of one generation that add up over generations, from the counters of all ranks."""
    metrics: dict[str, float] = _starting_with("critique/", total)
    for name in REFINE_COUNTS:
        if total[name]:
            metrics[name] = total[name]
    metrics |= _starting_with(TURN_PREFIX, total)
    metrics |= _starting_with("distill/", total)
    metrics |= _starting_with(LOST_PREFIX, total)
    # Of no use where nothing was lost.
    metrics.pop(f"{LOST_PREFIX}judged", None)
    for name, value in _starting_with("outcome/", total).items():
        outcome = name.removeprefix("outcome/")
        metrics[f"rollout/{outcome}"] = value
    return metrics


def critique_totals(total: Counts) -> Counts:
    """Of the counters of one generation those of critiques and of the refinements they led to."""
    kept = {
        name: count
        for name, count in total.items()
        if name.startswith("critique/") or name in ("refine/candidates", "refine/right")
    }
    return Counter(kept)


def generation_rates(total: Counts) -> dict[str, float]:
    """Rates of one generation, from the counters of all ranks; none without a denominator."""
    metrics = {}
    rates = RATES | _family_rates(total)
    for name, (above, below) in rates.items():
        if total[below]:
            metrics[name] = total[above] / total[below]
    return metrics


def _family_rates(total: Counts) -> dict[str, tuple[str, str]]:
    """Rates of every family of problems, as in `RATES`."""
    rates = {}
    for prefix, (metric, numerator) in FAMILY_RATES.items():
        for name in _starting_with(prefix, total):
            family = name.removeprefix(prefix)
            # Rows of a dataset without families are counted under None.
            if family != "None":
                above = f"{numerator}{family}"
                rates[f"{metric}{family}"] = (above, name)
    return rates


def _starting_with(prefix: str, total: Counts) -> dict[str, float]:
    return {name: value for name, value in total.items() if name.startswith(prefix)}
