"""Verdicts on one test of a claim, by its interval and by what the test could have shown.

With `delta: d` the contrast is oriented so that the claim expects it above 0, and d is the smallest
effect that is worth the claim, named before the run:

    reproduced   the interval lies wholly above d
    weaker       wholly above 0, and wholly below d
    refuted      it reaches 0, and lies wholly below d
    cannot show  the reference leaves no room for d, the interval has no width, or a check fails
    undecided    else, with the seeds that would decide

With `within: m` two one-sided tests (Schuirmann 1987): reproduced if the 90% interval lies inside
+-m, refuted if the 95% interval has no value inside. With `above` or `below` a number, as for a
loss that is tolerated: reproduced if the interval lies wholly on that side, refuted if it has no
value there. It cannot show anything where the reference leaves no room for that loss, or effect.
Bounds are open: a value that is the bound itself is neither above nor below it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from critique_rl.intervals import Interval

DELTA = "delta"
WITHIN = "within"
BOUNDS = (DELTA, "above", "below", WITHIN)
REPRODUCED = "reproduced"
WEAKER = "weaker"
REFUTED = "refuted"
CANNOT_SHOW = "cannot show"
UNDECIDED = "undecided"
NO_VERDICT = "no verdict"
EQUIVALENCE_LEVEL = 0.9
"""Two one-sided tests at .05 each."""


@dataclass(frozen=True)
class Room:
    """How far arms can get from the one that they are held against, as the test is about."""

    end: str
    """"ceiling" where they may rise, "floor" where they may fall."""
    reference: float
    """Its mean."""
    left: float


@dataclass(frozen=True)
class Evidence:
    """What the runs say of a contrast."""

    interval: Interval
    """95%."""
    narrow: Interval
    """90%, for equivalence."""
    room: Room | None = None
    """None where nothing is known of it."""


def decide(bound: str, number: float, evidence: Evidence) -> tuple[str, str]:
    """The verdict on one test, and why it cannot show anything, if it cannot.

    Args:
        bound: of `BOUNDS`.
        number: of the bound.
        evidence: of the contrast.
    """
    low = evidence.interval.low
    high = evidence.interval.high
    if math.isnan(low) or math.isnan(high):
        return UNDECIDED, ""
    if low == high:
        return CANNOT_SHOW, "the interval has no width"
    if bound == DELTA:
        return _effect(number, low, high, evidence)
    if bound == WITHIN:
        is_inside = -number < evidence.narrow.low and evidence.narrow.high < number
        is_outside = low >= number or high <= -number
    elif bound == "above":
        is_inside = low > number
        is_outside = high <= number
    else:
        is_inside = high < number
        is_outside = low >= number
    is_effect = number != 0 and (number > 0) == (bound == "above")
    if is_inside and is_effect:
        return REPRODUCED, ""
    # A loss that is tolerated is not kept away where nothing could be lost.
    if reason := _no_room(number, evidence.room):
        return CANNOT_SHOW, reason
    if is_inside:
        return REPRODUCED, ""
    if is_outside:
        return REFUTED, ""
    return UNDECIDED, ""


def moves_up(bound: str, number: float) -> bool:
    """Whether a test asks how far its contrast rises: for an effect, or as much as is tolerated."""
    if bound == "above":
        return number >= 0
    if bound == "below":
        return number > 0
    return True


def _no_room(number: float, room: Room | None) -> str:
    """Why a move by so much cannot show; "" where there is room for it."""
    size = abs(number)
    if room is None or room.left >= size:
        return ""
    reason = f"{room.end}: the reference is at {room.reference:.3g}, "
    reason += f"which leaves {room.left:.2g} for a move of {size:g}"
    return reason


def _effect(delta: float, low: float, high: float, evidence: Evidence) -> tuple[str, str]:
    """The verdict on an effect that is expected above 0."""
    if low > delta:
        return REPRODUCED, ""
    if reason := _no_room(delta, evidence.room):
        return CANNOT_SHOW, reason
    if high < delta:
        if low > 0:
            return WEAKER, ""
        return REFUTED, ""
    return UNDECIDED, ""


def distance(bound: str, number: float, mean: float) -> float:
    """How far a mean lies from the value that decides a test."""
    if bound == WITHIN:
        return abs(number - abs(mean))
    return abs(mean - number)


def overall(verdicts: Sequence[str]) -> str:
    """The verdict on a claim.

    Args:
        verdicts: those on its tests, in any order.
    """
    # In this order: runs that are missing leave the claim open, one refuted test refutes it, and
    # it is only as strong as its weakest test.
    for verdict in (NO_VERDICT, REFUTED, CANNOT_SHOW, UNDECIDED, WEAKER):
        if verdict in verdicts:
            return verdict
    return REPRODUCED


@dataclass(frozen=True)
class Check:
    """Whether the runs did what a test presupposes, such as that clipping happened at all."""

    arm: str
    log: str
    """A metric of metrics.jsonl."""
    bound: str
    """"above" or "below"; "moves": the last tenth of the steps is as far from the first."""
    number: float
    says: str = ""


def failed_check(check: Check, values: Mapping[int, Sequence[float]]) -> str:
    """Why a check fails; "" where it holds on every seed.

    Args:
        check: with its bound.
        values: seed -> the logged values, by step.
    """
    for seed, logged in values.items():
        if not logged:
            return f"{check.arm}, seed {seed}, logged no {check.log}"
        value = sum(logged) / len(logged)
        if check.bound == "moves":
            few = max(1, len(logged) // 10)
            first = sum(logged[:few])
            last = sum(logged[-few:])
            value = abs(last - first) / few
        if check.bound == "below":
            holds = value < check.number
        else:
            holds = value > check.number
        if not holds:
            what = check.says or f"{check.log} {check.bound} {check.number:g}"
            return f"a check fails: {check.arm}, seed {seed}: {what} (got {value:.3g})"
    return ""
