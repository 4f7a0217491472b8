"""The two phases of one generation batch as data: what was sampled and judged in each, and which
sequence fills which row. `two_phase` makes them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from critique_rl.trainer.rollout.generation import Counts, Critiques, NumberedRefinement
from critique_rl.trainer.rollout.sampled import Sampled
from critique_rl.trainer.rollout.scoring import Judged
from critique_rl.types import Attempt, Refinement


@dataclass(frozen=True)
class SlotCandidate:
    """One sequence of phase 2: a refinement, an expert's trace, or else a plain sample."""

    group: int
    """Index of its group on this rank."""
    attempt: int | None = None
    """Index of the attempt that it refines."""
    trace: list[int] | None = None
    """Token ids of the expert's trace, the end token included."""

    @property
    def owner(self) -> str:
        """Whose tokens these are, as `tokens/<owner>` counts them."""
        if self.attempt is not None:
            return "refinement"
        if self.trace is None:
            return "rollout"
        return "expert"


@dataclass(frozen=True)
class FirstPhase:
    """The rollouts of one batch, group by group, sampled and judged."""

    sampled: Sampled
    judged: Judged
    attempts: list[Attempt]
    """The same as text, with verdict and question."""


@dataclass(frozen=True)
class SecondPhase:
    """The sequences of phase 2, group by group, sampled and judged. A *place* is an index here."""

    candidates: list[SlotCandidate]
    sampled: Sampled
    judged: Judged
    mentions: list[bool]
    """Whether each is a refinement that speaks of the critique."""
    copies: int = 0
    """Further rows that were judged to make up the numbers of this rank."""


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
    """Places of the chosen ones."""
    idle: set[int]
    """Places of traces that no right refinement made room for."""
    counts: Counts
    """Counters of traces that took the rows of refinements."""


def count_tokens(first: FirstPhase, second: SecondPhase, idle: set[int]) -> Counts:
    """Tokens of both phases by owner, those of prompts apart. `idle` traces were never read."""
    counts: Counts = Counter()
    sampled = second.sampled
    for place, candidate in enumerate(second.candidates):
        if place in idle:
            continue
        owner = candidate.owner
        counts[f"tokens/{owner}"] += len(sampled.completion_ids[place])
        counts[f"tokens/{owner}_prompt"] += len(sampled.prompt_ids[place])
    counts["tokens/rollout"] += first.sampled.completion_tokens
    counts["tokens/rollout_prompt"] += first.sampled.prompt_tokens
    return counts


def number_refinements(
    first: FirstPhase, critiques: Critiques, second: SecondPhase, chosen: set[int]
) -> list[NumberedRefinement]:
    """The refinements among the sequences of phase 2, numbered after all rollouts.

    Args:
        first: the rollouts.
        critiques: index of an attempt -> its critique.
        second: the sequences of phase 2.
        chosen: places of those that fill a slot.
    """
    texts = second.sampled.texts
    refinements = []
    for place, candidate in enumerate(second.candidates):
        i = candidate.attempt
        if i is not None:
            verdict = second.judged.verdicts[place]
            refinement = Refinement(
                first.attempts[i], critiques[i], texts[place], verdict, chosen=place in chosen
            )
            number = len(first.attempts) + place
            refinements.append(NumberedRefinement(i, number, refinement))
    return refinements
