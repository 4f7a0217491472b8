"""How the mass that an arm took from the base's own wrong answers was shared out.

    freed_sp    = mass(base_wrong) before - after,    seed s, problem p
    gained_sp   = mass(c) after - before
    share(c)    = mean of gained / mean of freed

A mass is itself a share of all completions. So what is freed or gained has the interval of a
contrast of shares, after and before (`critique_rl.intervals`): it stays within -1 and 1, and has a
width where no problem of these changed.

The shares of right, near misses, other wrong answers and the rest add up to 1. Intervals are for
new seeds and new problems: the ratio is linearised, so that its error is that of a mean,

    share + (gained_sp - share freed_sp) / mean of freed

and on the scale of log-odds, so that they stay within 0 and 1. Where a class lost mass on some
seed, its share is bound to neither: that interval stays on the plain scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from critique_rl.analysis.evaluations import NO_NOISE
from critique_rl.analysis.flow.classes import BASE_WRONG, CLASSES
from critique_rl.analysis.flow.series import Series
from critique_rl.intervals import Interval, crossed_interval, share_contrast_interval

LEAST_FREED = 0.02
"""Mass that every seed must have freed for shares to be printed; under it they are noise."""
GAINED = tuple(kind for kind in CLASSES if kind != BASE_WRONG)
"""The classes that freed mass can go to."""


@dataclass(frozen=True)
class FreedMass:
    """What became of the base's wrong answers in one family, over seeds and problems."""

    freed: Interval
    """Mass taken from them."""
    least: float
    """The smallest mean over problems of any seed."""
    gained: Mapping[str, Interval]
    """Class -> mass that it gained."""
    shares: Mapping[str, Interval]
    """Class -> share of the freed mass; empty where some seed freed less than `LEAST_FREED`."""
    log10_right: tuple[float, float] | None
    """log10 of a right completion's mass before and after, a mean over seeds and problems; None
    where masses are estimated.
    """


def freed_mass(runs: Mapping[int, Series], family: str) -> FreedMass:
    """The freed mass of one arm in a family, from the first to the last point of each run.

    Args:
        runs: Seed -> series; all hold the same problems.
        family: The family.
    """
    series = list(runs.values())
    before_SP, after_SP = _masses(series, family, BASE_WRONG)
    freed_SP = before_SP - after_SP
    freed = share_contrast_interval((1, -1), (before_SP, after_SP), NO_NOISE)
    least = float(freed_SP.mean(axis=1).min())
    gained = {}
    shares = {}
    for kind in GAINED:
        before_SP, after_SP = _masses(series, family, kind)
        gained[kind] = share_contrast_interval((1, -1), (after_SP, before_SP), NO_NOISE)
        if least >= LEAST_FREED:
            shares[kind] = share_interval(after_SP - before_SP, freed_SP)
    return FreedMass(
        freed=freed,
        least=least,
        gained=gained,
        shares=shares,
        log10_right=_log10_right(series, family),
    )


def _masses(series: list[Series], family: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """A class's mass on the problems of a family, before and after: two of (S, P)."""
    before = []
    after = []
    for run in series:
        before.append(run.points[0].masses_of(run.families, family, kind))
        after.append(run.points[-1].masses_of(run.families, family, kind))
    # Sums of chances may leave 0 and 1 by rounding.
    before_SP = np.clip(before, 0.0, 1.0)
    after_SP = np.clip(after, 0.0, 1.0)
    return before_SP, after_SP


def _log10_right(series: list[Series], family: str) -> tuple[float, float] | None:
    before = 0.0
    after = 0.0
    for run in series:
        first = run.points[0].log10_right(run.families, family)
        last = run.points[-1].log10_right(run.families, family)
        if first is None or last is None:
            return None
        before += first / len(series)
        after += last / len(series)
    return before, after


def share_interval(gained_SP: np.ndarray, freed_SP: np.ndarray) -> Interval:
    """A ratio of means, and its interval over seeds and problems.

    Args:
        gained_SP: numerators.
        freed_SP: denominators, with a mean above 0.
    """
    freed = float(freed_SP.mean())
    share = float(gained_SP.mean()) / freed
    errors_SP = (gained_SP - share * freed_SP) / freed
    linear = crossed_interval(errors_SP)
    half = linear.high
    # A class that lost mass on some seed, or gained more than was freed, is not bound to 0 and 1.
    gained_S = gained_SP.mean(axis=1)
    freed_S = freed_SP.mean(axis=1)
    has_lost = np.any(gained_S <= 0)
    has_exceeded = np.any(gained_S >= freed_S)
    if has_lost or has_exceeded:
        return Interval(share, share - half, share + half)
    log_odds = math.log(share / (1 - share))
    half = half / (share * (1 - share))
    low = _from_log_odds(log_odds - half)
    high = _from_log_odds(log_odds + half)
    return Interval(share, low, high)


def _from_log_odds(value: float) -> float:
    # Far out the exponential overflows.
    if value < -700:
        return 0.0
    return 1 / (1 + math.exp(-value))
