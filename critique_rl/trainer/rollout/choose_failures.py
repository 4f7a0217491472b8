"""Which failures the critic is asked about, where `critique_share` lets only some of them through.

    asked so far = floor(critique_share * due so far)
    of these drawn by lot = floor(critique_explore * asked so far)

The others are taken by a rule, `choose_failures`. Lots alone decide where `critique_explore` is 1,
which is the control of the rule.

Left out: the text of attempts. Whether two failures have one fault is the verifier's to say.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import NamedTuple

from critique_rl.types import Attempt, Verdict

Fault = tuple[str, str]
"""Outcome, and the verdict's reason or answer."""


@dataclass(frozen=True)
class Failure:
    """A failed rollout that is due a critique."""

    number: int
    """Its index among this rank's rollouts."""
    group: int
    fault: Fault
    family: str
    group_solved: bool
    """Whether a rollout of its group is right."""


@dataclass(frozen=True)
class Quota:
    """How many failures of one rank are asked about."""

    asked: int
    explored: int
    """Those of them that are drawn by lot."""


@dataclass(frozen=True)
class Choice:
    """Every failure that was due, asked about or not."""

    asked: list[int]
    """Numbers, in order."""
    left: dict[int, str]
    """Number -> why it is not asked about, one of `REASONS`."""


class Rank(NamedTuple):
    """The place of a failure in the order: least first."""

    is_repeat: bool
    """Whether an earlier failure of its group has its fault."""
    later: int
    """How often its group's reserved rows could be filled before its turn comes."""
    group_solved: bool
    missed: float
    """Share of its family's refinements that were not right, in tenths: a smaller difference is
    left to lots.
    """


SHARE = "share"
REASONS = ("repeated_fault", "group_asked", "group_solved", "family", SHARE)
"""Why a failure is not asked about: the first field of `Rank` in which it is behind the last one
that is. `SHARE`: it is behind in none, and the share was used up.
"""


def quota_of(share: Fraction, explore: Fraction, before: int, due: int) -> Quota:
    """How many of the next failures are asked about.

    A batch carries on its remainder: 5 % of 30 failures per batch are 1, 2, 1, 2, ...

    Args:
        share: of due failures that are asked about, 0 to 1.
        explore: of asked ones that are drawn by lot, 0 to 1.
        before: failures that were due earlier: in steps before, and on ranks before this one.
        due: failures that are due now.
    """
    asked_before = floor(share * before)
    asked_after = floor(share * (before + due))
    explored_before = floor(explore * asked_before)
    explored_after = floor(explore * asked_after)
    return Quota(asked=asked_after - asked_before, explored=explored_after - explored_before)


def failures_of(attempts: Sequence[Attempt], due: Iterable[int], group_size: int) -> list[Failure]:
    """The failures that are due, as the rule reads them.

    Args:
        attempts: rollouts, group by group.
        due: indices of those that are due, in order.
        group_size: rollouts per group.
    """
    solved = set()
    for number, attempt in enumerate(attempts):
        if attempt.verdict.outcome == "right":
            solved.add(number // group_size)
    failures = []
    for number in due:
        attempt = attempts[number]
        group = number // group_size
        family = attempt.row.get("family")
        failure = Failure(
            number=number,
            group=group,
            fault=fault_of(attempt.verdict),
            # As the counters of its refinements spell it.
            family=str(family),
            group_solved=group in solved,
        )
        failures.append(failure)
    return failures


def fault_of(verdict: Verdict) -> Fault:
    """What is wrong with an answer: the verdict's reason, or without one the answer itself."""
    # A program is its own answer, and hardly ever written twice; the test that it fails is.
    if verdict.reason:
        return verdict.outcome, verdict.reason
    return verdict.outcome, str(verdict.answer)


def copies_of(attempts: Sequence[Attempt], due: Iterable[int], group_size: int) -> dict[int, int]:
    """The failures whose text an earlier failure of their group has.

    Args:
        attempts: rollouts, group by group.
        due: indices of failures, in order.
        group_size: rollouts per group.

    Returns:
        Index of a copy -> index of the first failure with its text.
    """
    firsts: dict[tuple[int, str], int] = {}
    copies = {}
    for number in due:
        group = number // group_size
        text = attempts[number].text
        first = firsts.setdefault((group, text), number)
        if first != number:
            copies[number] = first
    return copies


def choose_failures(
    failures: Sequence[Failure],
    quota: Quota,
    slots: int,
    rate_of: Callable[[str], float],
    draw: Callable[[int], int],
) -> Choice:
    """Choose the failures of one rank's batch that are asked about.

    Those that are not drawn by lot are taken in this order:

    1. The first failure with a fault comes before those of its group that repeat the fault.
    2. A group's first failures, as many as it has reserved rows, come before further ones of any
       group: one right refinement may fill the row for which a second critique would be.
    3. Groups without a right rollout come before groups with one.
    4. Families whose refinements were right more often so far, in tenths, come before others.
    5. Lots decide.

    Those by lot are then drawn from all that are left, so that a family or a fault that is always
    behind is looked at again.

    Args:
        failures: all that are due, in order.
        quota: how many to choose; at most as many as there are.
        slots: reserved rows per group.
        rate_of: family -> share of its refinements that were right so far.
        draw: `draw(n)` returns an integer in [0, n).
    """
    ranks = _ranks(failures, slots, rate_of)
    # Sorting keeps the order of equal ranks, which is that of the lots.
    order = _shuffled(len(failures), draw)
    order.sort(key=lambda place: ranks[place])
    first_lot = quota.asked - quota.explored
    asked = order[:first_lot]
    rest = order[first_lot:]
    last = None
    if asked:
        last = ranks[asked[-1]]
    for _ in range(quota.explored):
        place = draw(len(rest))
        asked.append(rest.pop(place))
    left = {}
    for place in sorted(rest):
        number = failures[place].number
        left[number] = _reason(ranks[place], last)
    numbers = [failures[place].number for place in sorted(asked)]
    return Choice(numbers, left)


def _ranks(failures: Sequence[Failure], slots: int, rate_of: Callable[[str], float]) -> list[Rank]:
    """The rank of each failure."""
    seen: dict[int, set[Fault]] = defaultdict(set)
    repeats = []
    for failure in failures:
        faults = seen[failure.group]
        repeats.append(failure.fault in faults)
        faults.add(failure.fault)
    # Repeats of a group come after all of its distinct faults.
    turn_of_first: Counter[int] = Counter()
    turn_of_repeat: Counter[int] = Counter()
    for group, faults in seen.items():
        turn_of_repeat[group] = len(faults)
    # Without reserved rows a group has one turn at a time.
    at_once = max(1, slots)
    ranks = []
    for failure, is_repeat in zip(failures, repeats, strict=True):
        turns = turn_of_first
        if is_repeat:
            turns = turn_of_repeat
        turn = turns[failure.group]
        turns[failure.group] += 1
        rate = rate_of(failure.family)
        rank = Rank(
            is_repeat=is_repeat,
            later=turn // at_once,
            group_solved=failure.group_solved,
            missed=round(1 - rate, 1),
        )
        ranks.append(rank)
    return ranks


def _shuffled(count: int, draw: Callable[[int], int]) -> list[int]:
    """The integers under `count` in an order by lot."""
    rest = list(range(count))
    order = []
    while rest:
        place = draw(len(rest))
        order.append(rest.pop(place))
    return order


def _reason(rank: Rank, last: Rank | None) -> str:
    """Why a failure is not asked about.

    Args:
        rank: of the failure.
        last: of the last one that is asked about by its rank; None where all are drawn by lot.
    """
    if last is not None:
        for reason, mine, theirs in zip(REASONS, rank, last, strict=False):
            if mine != theirs:
                return reason
    return SHARE
