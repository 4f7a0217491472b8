"""The two phases of one generation batch as data: what was sampled and judged in each, and which
sequence fills which row. `two_phase` makes them, and `turns` adds further turns to phase 2.

A *chain* is a failed rollout and its refinements, one per turn, each of the one before it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from critique_rl.trainer.rollout.generation import (
    Counts,
    Critiques,
    NumberedRefinement,
    PlainSample,
)
from critique_rl.trainer.rollout.sampled import Sampled
from critique_rl.trainer.rollout.scoring import Judged
from critique_rl.types import Attempt, Refinement


@dataclass(frozen=True)
class SlotCandidate:
    """One sequence of phase 2: a refinement, an expert's trace, or else a plain sample."""

    group: int
    """Index of its group on this rank."""
    attempt: int | None = None
    """Index of the rollout that its chain begins with."""
    trace: list[int] | None = None
    """Token ids of the expert's trace, the end token included."""
    turn: int = 1
    """Turn of phase 2 in which it was sampled."""
    earlier: int | None = None
    """Number of the refinement that it refines; None if it refines the rollout itself."""

    @property
    def source(self) -> int | None:
        """Number of the sequence that it refines."""
        if self.earlier is not None:
            return self.earlier
        return self.attempt

    @property
    def owner(self) -> str:
        """Whose tokens these are, as `tokens/<owner>` counts them."""
        if self.attempt is not None:
            return "refinement"
        if self.trace is None:
            return "rollout"
        return "expert"


@dataclass(frozen=True)
class SlotPlan:
    """What phase 2 is to sample."""

    candidates: list[SlotCandidate]
    """Its sequences, group by group."""
    prompts: list[Any]
    """The prompts of those that are sampled, in order."""
    traces: dict[int, Sampled]
    """Place of an expert's trace among the candidates -> the trace."""
    counts: Counts
    """Counters of expert traces."""


@dataclass(frozen=True)
class FirstPhase:
    """The rollouts of one batch, group by group, sampled and judged."""

    sampled: Sampled
    judged: Judged
    attempts: list[Attempt]
    """The same as text, with verdict and question."""


@dataclass(frozen=True)
class SecondPhase:
    """The sequences of phase 2, sampled and judged: turn by turn, and in a turn group by group. A
    *place* is an index here.
    """

    candidates: list[SlotCandidate]
    sampled: Sampled
    judged: Judged
    attempts: list[Attempt]
    """The same as text, with verdict and question."""
    mentions: list[bool]
    """Whether each is a refinement that speaks of the critique."""
    rows: list[int]
    """Row of each among those of phase 2 that were judged, copies between turns included."""
    copies: int = 0
    """Further rows that were judged after the last to make up the numbers of this rank."""

    @property
    def judged_rows(self) -> int:
        """Rows that were judged before the last copies."""
        if not self.rows:
            return 0
        return self.rows[-1] + 1

    def followed_by(self, turn: SecondPhase) -> SecondPhase:
        """These sequences, and behind them those of a further turn."""
        start = self.judged_rows + self.copies
        rows = list(self.rows)
        for row in turn.rows:
            rows.append(start + row)
        copies = turn.copies
        if not turn.rows:
            copies += self.copies
        return SecondPhase(
            self.candidates + turn.candidates,
            self.sampled + turn.sampled,
            self.judged + turn.judged,
            self.attempts + turn.attempts,
            self.mentions + turn.mentions,
            rows,
            copies,
        )

    def places_of(self, group: int) -> list[int]:
        """Places of what a group offers for its reserved rows: of each chain the last refinement,
        and all plain samples and traces, in the order of turn 1.
        """
        last = self.last_of_chains()
        places = []
        for place, candidate in enumerate(self.candidates):
            if candidate.group != group or candidate.turn > 1:
                continue
            if candidate.attempt is None:
                places.append(place)
            else:
                places.append(last[candidate.attempt])
        return places

    def last_of_chains(self) -> dict[int, int]:
        """Index of a refined rollout -> place of the last refinement of its chain."""
        last = {}
        for place, candidate in enumerate(self.candidates):
            if candidate.attempt is not None:
                # Turn by turn, so that a later one replaces an earlier one.
                last[candidate.attempt] = place
        return last


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


def without_reserved(rows: list[Any], group_size: int, group_rollouts: int) -> list[Any]:
    """Of the rows of complete groups those that phase 1 samples, the first of each group."""
    kept = []
    for start in range(0, len(rows), group_size):
        end = start + group_rollouts
        kept += rows[start:end]
    return kept


def count_rollouts(first: FirstPhase) -> Counts:
    """Tokens of the rollouts, those of prompts apart."""
    counts: Counts = Counter()
    counts["tokens/rollout"] = first.sampled.completion_tokens
    counts["tokens/rollout_prompt"] = first.sampled.prompt_tokens
    return counts


def count_second(second: SecondPhase, idle: set[int]) -> Counts:
    """Tokens of phase 2 by owner, those of prompts apart. `idle` traces were never read."""
    counts: Counts = Counter()
    sampled = second.sampled
    for place, candidate in enumerate(second.candidates):
        if place in idle:
            continue
        owner = candidate.owner
        counts[f"tokens/{owner}"] += len(sampled.completion_ids[place])
        counts[f"tokens/{owner}_prompt"] += len(sampled.prompt_ids[place])
    return counts


def number_refinements(
    first: FirstPhase, critiques: Critiques, second: SecondPhase, chosen: set[int]
) -> list[NumberedRefinement]:
    """The refinements among the sequences of phase 2, numbered after all rollouts.

    Args:
        first: the rollouts.
        critiques: number of an attempt -> its critique, those on refinements among them.
        second: the sequences of phase 2.
        chosen: places of those that fill a slot.
    """
    attempts = first.attempts + second.attempts
    refinements = []
    for place, candidate in enumerate(second.candidates):
        source = candidate.source
        if candidate.attempt is None or source is None:
            continue
        number = len(first.attempts) + place
        refinement = Refinement(
            attempts[source],
            critiques[source],
            attempts[number].text,
            attempts[number].verdict,
            chosen=place in chosen,
            turn=candidate.turn,
        )
        refinements.append(NumberedRefinement(candidate.attempt, number, refinement))
    return refinements


def number_plain_samples(
    first: FirstPhase, second: SecondPhase, idle: set[int]
) -> list[PlainSample]:
    """Plain samples and expert traces of phase 2, numbered after all rollouts.

    Args:
        first: the rollouts.
        second: the sequences of phase 2.
        idle: places of traces that are left out, because they train nothing.
    """
    samples = []
    for place, candidate in enumerate(second.candidates):
        if candidate.attempt is None and place not in idle:
            number = len(first.attempts) + place
            attempt = second.attempts[place]
            samples.append(PlainSample(candidate.group, number, candidate.owner, attempt))
    return samples
