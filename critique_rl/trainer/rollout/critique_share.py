"""What the choice of failures remembers from step to step: how many were due, and how often the
refinements of each family were right.

It is alike on every rank, so one rank's checkpoint serves all. Each rank chooses among its own
failures by `choose_failures`; ranks share the count out as if they came one after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object

from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
from critique_rl.trainer.rollout.choose_failures import choose_failures, failures_of, quota_of
from critique_rl.trainer.rollout.generation import Counts
from critique_rl.types import Attempt

MOST_FAMILIES = 1000
"""Families whose refinements are counted apart; a dataset may name one per row. Later ones share
the count of `OTHERS`.
"""
OTHERS = "other families"
NOT_ASKED = "critique/not_asked/"
"""Begins the names of counters of failures that are not asked about, by reason."""


class CritiqueShare:
    """Chooses the failures that the critic is asked about, where it is not asked about all."""

    def __init__(self, args: CritiqueGRPOConfig, draw: Callable[[int], int]):
        """Take the settings of the run.

        Args:
            args: settings of the run.
            draw: `draw(n)` returns an integer in [0, n).
        """
        self.args = args
        self.draw = draw
        # As they are written: .29 of 100 failures are 29, and not floor(28.999...).
        self.share = Fraction(str(args.critique_share))
        self.explore = Fraction(str(args.critique_explore))
        self.due = 0
        """Failures that were due so far, over all ranks."""
        self.refined: Counts = Counter()
        """Family -> refinements so far, over all ranks."""
        self.rescued: Counts = Counter()
        """Family -> those of them that were right."""

    def choose(self, attempts: Sequence[Attempt], due: Sequence[int]) -> tuple[list[int], Counts]:
        """Choose this rank's failures that the critic is asked about.

        A collective: every rank calls it, those without a failure too.

        Args:
            attempts: the rollouts of this rank, group by group.
            due: indices of the failures that could be asked about.

        Returns:
            Indices of those that are, in order; and counters.
        """
        due_by_rank = gather_object([len(due)])
        rank = PartialState().process_index
        before = self.due + sum(due_by_rank[:rank])
        self.due += sum(due_by_rank)
        failures = failures_of(attempts, due, self.args.group_rollouts)
        quota = quota_of(self.share, self.explore, before, len(due))
        choice = choose_failures(
            failures=failures,
            quota=quota,
            slots=self.args.refine_slots,
            rate_of=self.rescue_rate,
            draw=self.draw,
        )
        counts: Counts = Counter()
        counts["critique/due"] = len(due)
        counts["critique/asked"] = len(choice.asked)
        for reason in choice.left.values():
            counts[f"{NOT_ASKED}{reason}"] += 1
        return choice.asked, counts

    def rescue_rate(self, family: str) -> float:
        """The share of a family's refinements that were right so far.

        Each family counts one right refinement more than it had. So an unseen one has the rate 1,
        and is asked about before the others.
        """
        name = self._counted_name(family)
        rescued = self.rescued[name]
        refined = self.refined[name]
        return (rescued + 1) / (refined + 1)

    def count_refined(self, total: Counts) -> None:
        """Add the refinements of one generation.

        Args:
            total: its counters over all ranks.
        """
        for counter, count in total.items():
            prefix, _, family = counter.partition("/")
            if prefix == "refined":
                name = self._counted_name(family)
                self.refined[name] += int(count)
                self.rescued[name] += int(total[f"rescued/{family}"])

    def _counted_name(self, family: str) -> str:
        if family in self.refined:
            return family
        if len(self.refined) < MOST_FAMILIES:
            return family
        return OTHERS

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON."""
        return {"due": self.due, "refined": dict(self.refined), "rescued": dict(self.rescued)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`. {}: nothing was due so far."""
        self.due = state.get("due", 0)
        self.refined = Counter(state.get("refined", {}))
        self.rescued = Counter(state.get("rescued", {}))
