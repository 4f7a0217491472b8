"""One generation batch as text, and what is counted about it. Counters add up over ranks and steps;
metrics are made from their sums.

failed rollouts = critiques ok + cached + failed + skipped + not asked, each failure and skip with a
reason.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import torch

from critique_rl.types import Attempt, Critique, Refinement, Verdict


@dataclass
class Generation:
    """One generation batch of this rank, as text. What was scored is numbered through: rollouts
    first, then candidates and plain samples.
    """

    group_rollouts: int = 1
    """Rollouts of phase 1 in a group."""

    attempts: list[Attempt] = field(default_factory=list)
    critiques: dict[int, Critique] = field(default_factory=dict)
    """Of the attempts that were due one, by index of the attempt."""
    refinements: list[tuple[int, int, Refinement]] = field(default_factory=list)
    """(index of the attempt, number among what was scored, refinement)."""
    plain: list[tuple[int, int, str, Attempt]] = field(default_factory=list)
    """(group, number among what was scored, "rollout" or "expert", attempt) of plain samples drawn
    for reserved rows, and of experts' traces.
    """
    order: list[int] = field(default_factory=list)
    """For each row of the batch its number among what was scored."""
    values: list[float] = field(default_factory=list)
    """Weighted reward of all that was scored; NaN where it could not be judged."""
    rewards: torch.Tensor | None = None
    """(rows of the batch, reward functions), this rank's, in the batch's order; NaN for group-wise
    functions until they are called.
    """
    refined: list[int] = field(default_factory=list)
    """Rows of the batch that hold a chosen refinement or an expert's trace."""
    off_policy: list[int] = field(default_factory=list)
    """Rows that hold a candidate nobody chose (unscored, or dropped): they train nothing."""
    verdicts: list[Verdict] = field(default_factory=list)
    """Of every row of the batch."""
    counts: Counter = field(default_factory=Counter)


def counts_of(batch: Generation, size: int, slots: int) -> Counter:
    """Counters of one rank's generation batch, in groups of `size` rows with `slots` reserved."""
    counts: Counter = Counter()
    for critique in batch.critiques.values():
        counts[
            "critique/cached"
            if critique.cached and critique.status == "ok"
            else f"critique/{critique.status}"
        ] += 1
        counts["critique/leaked"] += critique.leaked
        counts["tokens/critic_prompt"] += critique.usage.prompt_tokens
        counts["tokens/critic_completion"] += critique.usage.completion_tokens
        counts["critique/usd"] += critique.usage.usd
        counts["critique/usage_estimated"] += critique.usage.estimated
        if critique.reason:
            # Without a server's words, which may hold the time or a number: metrics are many steps'
            # and their names few.
            counts[f"critique/{critique.status}/{critique.reason.partition(':')[0]}"] += 1
        counts.update(f"critique/{note}" for note in critique.notes)
    for _, _, refinement in batch.refinements:
        counts["refine/candidates"] += 1
        counts["refine/right"] += refinement.verdict.outcome == "right"
        counts["refine/chosen"] += refinement.chosen
        family = refinement.attempt.row.get("family")
        counts[f"refined/{family}"] += 1
        counts[f"rescued/{family}"] += refinement.verdict.outcome == "right"
    for name in ("experts", "right_experts"):
        counts[f"refine/{name}"] = sum(
            role == "expert" and (name == "experts" or a.verdict.outcome == "right")
            for _, _, role, a in batch.plain
        )
    return counts + _signal_counts(batch, size, slots)


def _signal_counts(batch: Generation, size: int, slots: int) -> Counter:
    counts: Counter = Counter()
    rights = [verdict.outcome == "right" for verdict in batch.verdicts]
    for start in range(0, len(rights), size):
        group, own = rights[start : start + size], rights[start : start + size - slots]
        counts["groups"] += 1
        counts["groups/before"] += 0 < sum(own) < len(own)
        counts["groups/after"] += 0 < sum(group) < len(group)
        counts["groups/failed"] += not any(own)
        counts["groups/rescued"] += not any(own) and any(group)
    for attempt in batch.attempts:
        family = attempt.row.get("family")
        counts[f"family/{family}"] += 1
        counts[f"family_right/{family}"] += attempt.verdict.outcome == "right"
        counts[f"outcome/{attempt.verdict.outcome}"] += 1
        if attempt.verdict.outcome == "unscored" and attempt.verdict.reason:
            # The code before the colon; what follows it are words on one row.
            counts[f"outcome/unscored/{attempt.verdict.reason.partition(':')[0]}"] += 1
    return counts


def metrics_of(total: Counter) -> dict[str, float]:
    """Metrics of one generation from the counters of all ranks; a rate without a denominator is
    left out.
    """
    metrics = {name: value for name, value in total.items() if name.startswith("critique/")}
    rates = {
        "refine/rescue_rate": ("refine/right", "refine/candidates"),
        "refine/groups_rescued": ("groups/rescued", "groups/failed"),
        "critique/signal_before": ("groups/before", "groups"),
        "critique/signal_after": ("groups/after", "groups"),
    }
    rates |= {
        f"rollout/right/{name[7:]}": (f"family_right/{name[7:]}", name)
        for name in total
        if name.startswith("family/") and name != "family/None"
    }
    rates |= {
        f"refine/rescue_rate/{name[8:]}": (f"rescued/{name[8:]}", name)
        for name in total
        if name.startswith("refined/") and name != "refined/None"
    }
    metrics |= {
        name: total[above] / total[below] for name, (above, below) in rates.items() if total[below]
    }
    counted = (
        "candidates",
        "chosen",
        "mentions",
        "experts",
        "right_experts",
        "traces_missing",
        "traces_too_long",
    )
    metrics |= {
        f"refine/{name}": total[f"refine/{name}"] for name in counted if total[f"refine/{name}"]
    }
    metrics |= {name: value for name, value in total.items() if name.startswith("distill/")}
    return metrics | {
        f"rollout/{name[8:]}": value for name, value in total.items() if name.startswith("outcome/")
    }
