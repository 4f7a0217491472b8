"""Rollouts in two phases: sample and judge N - k rows of each group, have the failed ones
critiqued, fill the k reserved rows.

Phase 2 samples m refinements per group, or takes expert traces. k of them stand under the plain
prompt, and plain samples where nothing failed or nothing came back. Every rank scores the same
number of rows and makes the same number of `generate` calls, whatever failed on it.

`TwoPhaseRollout` owns its batch: it gets prompts and rows, and returns a `Generation`. Who writes
and reads each field stands in `generation`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch

from critique_rl.critic.contract import Critic
from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
from critique_rl.trainer.rollout.critiques import CriticTurn
from critique_rl.trainer.rollout.generation import (
    Generation,
    NumberedRefinement,
    PlainSample,
    make_attempts,
)
from critique_rl.trainer.rollout.refine import choose_candidates, mentions_critique, question_of
from critique_rl.trainer.rollout.sampled import Sampled, batch_columns
from critique_rl.trainer.rollout.sampler import Sampler
from critique_rl.trainer.rollout.scoring import Judged, Scorer
from critique_rl.types import Attempt, Critique, Refinement, Verdict

Row = dict[str, Any]
"""A row of the dataset: the prompt and its other columns."""


@dataclass(frozen=True)
class SlotCandidate:
    """One sequence of phase 2: a refinement, an expert's trace, or else a plain sample."""

    group: int
    attempt: int | None = None
    """Index of the attempt that it refines."""
    trace: list[int] | None = None
    """Token ids of the expert's trace, the end token included."""

    @property
    def owner(self) -> str:
        """Whose tokens these are, as `tokens/<owner>` counts them."""
        if self.attempt is not None:
            return "refinement"
        return "rollout" if self.trace is None else "expert"


@dataclass(frozen=True)
class FilledSlots:
    """Which sequence every row of the batch holds."""

    order: list[int]
    """Number of the sequence in each row."""
    refined: list[int]
    """Rows with a chosen refinement or an expert's trace."""
    off_policy: list[int]
    """Rows with a candidate nobody chose."""
    chosen: set[int]
    """Places of the chosen ones in phase 2."""


class TwoPhaseRollout:
    """Makes one generation batch of this rank per call of `run`, which calls the stations in turn.

    It changes nothing outside: it reads the policy through `sampler`, and the reward functions
    through `scorer`.
    """

    def __init__(
        self,
        args: CritiqueGRPOConfig,
        sampler: Sampler,
        scorer: Scorer,
        critic: Critic | None,
        processes: int = 1,
    ):
        """Take what every batch needs.

        Args:
            args: settings of the run.
            sampler: samples from the policy.
            scorer: judges completions.
            critic: the critic, or None if expert traces fill the reserved rows.
            processes: number of ranks.
        """
        self.args = args
        self.sampler = sampler
        self.scorer = scorer
        self.processes = processes
        self.critic_turn: CriticTurn | None = None
        if critic is not None:
            self.critic_turn = CriticTurn(critic, args, self.group_rollouts, sampler)

    @property
    def group_size(self) -> int:
        """Rows per group, N."""
        return self.args.num_generations

    @property
    def group_rollouts(self) -> int:
        """Rows per group that phase 1 samples, N - k."""
        return self.args.num_generations - self.args.refine_slots

    @property
    def group_candidates(self) -> int:
        """Refinements per group at most, m."""
        return self.args.refine_candidates or self.group_rollouts

    def run(self, prompts: list[Any], rows: list[Row]) -> Generation:
        """Make one generation batch of this rank. A collective: every rank calls it.

        Args:
            prompts: prompts in groups of N equal ones.
            rows: the dataset's row of each prompt.
        """
        group_prompts = prompts[:: self.group_size]
        group_rows = rows[:: self.group_size]
        rollouts = self.sample_rollouts(prompts)
        rollout_rows = self.without_reserved(rows)
        rollouts_judged = self.scorer.judge(rollout_rows, rollouts)
        attempts = make_attempts(rollout_rows, rollouts.completions, rollouts_judged.verdicts)
        critiques, counts = self.critique_failed(attempts)
        candidates, trace_counts = self.plan_candidates(group_rows, critiques)
        second = self.sample_candidates(group_prompts, candidates, attempts, critiques)
        second_judged = self.judge_candidates(group_rows, candidates, second, rollouts)
        mentions = find_mentions(candidates, second)
        slots = self.fill_slots(len(group_rows), candidates, second_judged.verdicts, mentions)

        judged = rollouts_judged + second_judged
        self.scorer.reorder_extra_columns(slots.order, len(judged.values))
        counts.update(trace_counts)
        counts["refine/mentions"] = sum(mentions)
        counts.update(count_tokens(rollouts, candidates, second))
        texts = second.texts
        return Generation(
            group_rollouts=self.group_rollouts,
            attempts=attempts,
            critiques=critiques,
            refinements=number_refinements(
                candidates, texts, second_judged.verdicts, slots.chosen, attempts, critiques
            ),
            plain=number_plain_samples(
                candidates, texts, second_judged.verdicts, group_rows, len(attempts)
            ),
            order=slots.order,
            values=judged.values,
            rewards=judged.rewards[slots.order],
            refined=slots.refined,
            off_policy=slots.off_policy,
            verdicts=[judged.verdicts[number] for number in slots.order],
            columns=batch_columns(rollouts, second, slots.order),
            counts=counts,
        )

    # ---- phase 1 ---------------------------------------------------------------------------------

    def without_reserved(self, rows: list[Any]) -> list[Any]:
        """Of the rows of complete groups those that phase 1 samples, N - k per group."""
        return [row for i, row in enumerate(rows) if i % self.group_size < self.group_rollouts]

    def sample_rollouts(self, prompts: list[Any]) -> Sampled:
        """Sample the N - k rollouts of each group."""
        return self.sampler.sample(self.without_reserved(prompts), self.group_rollouts)

    def critique_failed(self, attempts: list[Attempt]) -> tuple[dict[int, Critique], Counter]:
        """Critiques by index of the attempt, and counters; none without a critic."""
        if self.critic_turn is None:
            return {}, Counter()
        return self.critic_turn.critique_failed(attempts)

    # ---- phase 2 ---------------------------------------------------------------------------------

    def plan_candidates(
        self, group_rows: list[Row], critiques: dict[int, Critique]
    ) -> tuple[list[SlotCandidate], Counter]:
        """The sequences of phase 2, group by group, and counters of expert traces.

        A group has refinements or an expert's trace, then plain samples for slots they leave.
        """
        candidates: list[SlotCandidate] = []
        counts: Counter = Counter()
        if not self.args.refine_slots:
            return candidates, counts
        for group, row in enumerate(group_rows):
            if self.args.refine_column is None:
                planned = self._plan_refinements(group, critiques)
            else:
                text = row.get(self.args.refine_column)
                planned, group_counts = self._plan_trace(group, text)
                counts.update(group_counts)
            left = max(0, self.args.refine_slots - len(planned))
            candidates += [*planned, *[SlotCandidate(group)] * left]
        return candidates, counts

    def sample_candidates(
        self,
        group_prompts: list[Any],
        candidates: list[SlotCandidate],
        attempts: list[Attempt],
        critiques: dict[int, Critique],
    ) -> Sampled:
        """Sample refinements and plain samples in one call; expert traces take their places."""
        prompts = []
        traces = {}
        for place, candidate in enumerate(candidates):
            group_prompt = group_prompts[candidate.group]
            if candidate.trace is not None:
                traces[place] = self.sampler.quote(group_prompt, candidate.trace)
            elif candidate.attempt is None or self.critic_turn is None:
                prompts.append(group_prompt)
            else:
                i = candidate.attempt
                prompts.append(self.critic_turn.refine_prompt(attempts[i], critiques[i]))
        sampled = self.sampler.sample_uneven(prompts, group_prompts[0])
        return sampled.with_inserted(traces)

    def judge_candidates(
        self,
        group_rows: list[Row],
        candidates: list[SlotCandidate],
        second: Sampled,
        rollouts: Sampled,
    ) -> Judged:
        """Judge phase 2 as answers to the plain questions.

        Args:
            group_rows: the dataset's row of each group.
            candidates: the sequences of phase 2.
            second: their completions.
            rollouts: completions of phase 1, to pad with.
        """
        if not self.args.refine_slots:
            return self.scorer.judge_nothing()
        most = max(self.group_candidates, self.args.refine_slots) * len(group_rows)
        # Scoring gathers over ranks without padding, and a rank with fewer failures has fewer
        # candidates: copies make up the numbers.
        copies = most - len(candidates) if self.processes > 1 else 0
        padded = Sampled(
            [],
            second.completion_ids + [rollouts.completion_ids[0]] * copies,
            None,
            second.completions + [rollouts.completions[0]] * copies,
        )
        rows = [group_rows[candidate.group] for candidate in candidates]
        judged = self.scorer.judge(rows + [group_rows[0]] * copies, padded)
        return judged.head(len(candidates))

    def fill_slots(
        self,
        groups: int,
        candidates: list[SlotCandidate],
        verdicts: list[Verdict],
        mentions: list[bool],
    ) -> FilledSlots:
        """Decide which sequence of phase 2 fills each reserved row.

        Args:
            groups: number of groups of this rank.
            candidates: the sequences of phase 2.
            verdicts: their verdicts.
            mentions: whether each is a refinement that speaks of the critique.
        """
        order: list[int] = []
        refined: list[int] = []
        off_policy: list[int] = []
        all_chosen: set[int] = set()
        for group in range(groups):
            first_number = group * self.group_rollouts
            order.extend(range(first_number, first_number + self.group_rollouts))
            places = [place for place, each in enumerate(candidates) if each.group == group]
            plain = [place for place in places if candidates[place].owner == "rollout"]
            others = [place for place in places if place not in plain]
            chosen = self._choose(others, verdicts, mentions)
            all_chosen.update(chosen)
            # Unscored and dropped candidates are the last resort: as plain rows they carry no
            # refine credit.
            spare = [place for place in others if place not in chosen]
            for place in (chosen + plain + spare)[: self.args.refine_slots]:
                row = len(order)
                if place in chosen:
                    refined.append(row)
                elif place in spare:
                    off_policy.append(row)
                order.append(groups * self.group_rollouts + place)
        return FilledSlots(order, refined, off_policy, all_chosen)

    def _choose(
        self, places: list[int], verdicts: list[Verdict], mentions: list[bool]
    ) -> list[int]:
        """Of the refinements or traces of one group those that fill its slots."""
        allowed = places
        if self.args.refine_mentions == "drop":
            allowed = [place for place in places if not mentions[place]]
        chosen = choose_candidates(
            [verdicts[place] for place in allowed],
            self.args.refine_slots,
            draw_index,
            self.args.refine_select,
        )
        return [allowed[i] for i in chosen]

    def _plan_refinements(self, group: int, critiques: dict[int, Critique]) -> list[SlotCandidate]:
        """One candidate per usable critique of the group, m at most."""
        usable = [i for i, critique in critiques.items() if critique.status == "ok"]
        of_group = [i for i in usable if i // self.group_rollouts == group]
        return [SlotCandidate(group, attempt=i) for i in of_group[: self.group_candidates]]

    def _plan_trace(self, group: int, text: Any) -> tuple[list[SlotCandidate], Counter]:
        """A group's candidate from its expert's trace; none, but a count, if it cannot be used."""
        ids = self.sampler.completion_ids(str(text)) if text else []
        if not ids:
            return [], Counter({"refine/traces_missing": 1})
        if len(ids) > self.sampler.max_completion_length:
            return [], Counter({"refine/traces_too_long": 1})
        return [SlotCandidate(group, trace=ids)], Counter()


def find_mentions(candidates: list[SlotCandidate], second: Sampled) -> list[bool]:
    """Whether each sequence of phase 2 is a refinement that speaks of the critique."""
    pairs = zip(candidates, second.texts, strict=True)
    return [each.attempt is not None and mentions_critique(text) for each, text in pairs]


def count_tokens(rollouts: Sampled, candidates: list[SlotCandidate], second: Sampled) -> Counter:
    """Tokens of both phases by owner, those of prompts apart."""
    counts: Counter = Counter()
    lengths = zip(candidates, second.completion_lengths, second.prompt_lengths, strict=True)
    for candidate, completion, prompt in lengths:
        counts[f"tokens/{candidate.owner}"] += completion
        counts[f"tokens/{candidate.owner}_prompt"] += prompt
    counts["tokens/rollout"] += sum(rollouts.completion_lengths)
    counts["tokens/rollout_prompt"] += sum(rollouts.prompt_lengths)
    return counts


def number_refinements(
    candidates: list[SlotCandidate],
    texts: list[str],
    verdicts: list[Verdict],
    chosen: set[int],
    attempts: list[Attempt],
    critiques: dict[int, Critique],
) -> list[NumberedRefinement]:
    """The refinements among the sequences of phase 2, numbered after all rollouts."""
    refinements = []
    for place, (candidate, text) in enumerate(zip(candidates, texts, strict=True)):
        i = candidate.attempt
        if i is None:
            continue
        refinement = Refinement(
            attempts[i], critiques[i], text, verdicts[place], chosen=place in chosen
        )
        refinements.append(NumberedRefinement(i, len(attempts) + place, refinement))
    return refinements


def number_plain_samples(
    candidates: list[SlotCandidate],
    texts: list[str],
    verdicts: list[Verdict],
    group_rows: list[Row],
    rollouts: int,
) -> list[PlainSample]:
    """Plain samples and expert traces among the sequences of phase 2, numbered after `rollouts`."""
    samples = []
    for place, (candidate, text) in enumerate(zip(candidates, texts, strict=True)):
        if candidate.attempt is not None:
            continue
        row = group_rows[candidate.group]
        attempt = Attempt(question_of(row["prompt"]), text, verdicts[place], row)
        samples.append(PlainSample(candidate.group, rollouts + place, candidate.owner, attempt))
    return samples


def draw_index(n: int) -> int:
    """A random integer in [0, n)."""
    # torch's generator, because its state is in every checkpoint.
    return int(torch.randint(n, (1,)))
