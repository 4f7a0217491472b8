"""How the mass that an arm took from the base's own wrong answers was shared out.

    freed_sp    = mass(base_wrong) before - after,    seed s, problem p
    gained_sp   = mass(c) after - before
    share(c)    = mean of gained / mean of freed

The shares of right, near misses, other wrong answers and the rest add up to 1. Intervals are for
new seeds and new problems: the ratio is linearised, so that its error is that of a mean,

    share + (gained_sp - share freed_sp) / mean of freed

and on the scale of log-odds, so that they stay within 0 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from critique_rl.analysis.flow.classes import BASE_WRONG, CLASSES
from critique_rl.analysis.flow.series import Point, Series
from critique_rl.intervals import Interval, crossed_interval

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
    shares: Mapping[str, Interval] | None
    """Class -> share of the freed mass; None where some seed freed less than `LEAST_FREED`."""
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
    families = series[0].families
    ids = [name for name in families if families[name] == family]
    gains = {kind: _changes(series, ids, kind) for kind in CLASSES}
    freed_SP = -gains[BASE_WRONG]
    least = float(freed_SP.mean(axis=1).min())
    shares = None
    if least >= LEAST_FREED:
        shares = {kind: share_interval(gains[kind], freed_SP) for kind in GAINED}
    return FreedMass(
        freed=crossed_interval(freed_SP),
        least=least,
        gained={kind: crossed_interval(gains[kind]) for kind in GAINED},
        shares=shares,
        log10_right=_log10_right(series, family),
    )


def _changes(series: list[Series], ids: list[str], kind: str) -> np.ndarray:
    """Change (S, P) of a class's mass."""
    rows = []
    for run in series:
        before = run.points[0].problems
        after = run.points[-1].problems
        rows.append([after[name][kind] - before[name][kind] for name in ids])
    return np.array(rows)


def _log10_right(series: list[Series], family: str) -> tuple[float, float] | None:
    before = _mean_log10([run.points[0] for run in series], series[0].families, family)
    after = _mean_log10([run.points[-1] for run in series], series[0].families, family)
    if before is None or after is None:
        return None
    return before, after


def _mean_log10(points: list[Point], families: Mapping[str, str], family: str) -> float | None:
    logs = [point.log10_right(families, family) for point in points]
    known = [log for log in logs if log is not None]
    if len(known) < len(logs):
        return None
    return sum(known) / len(known)


def share_interval(gained_SP: np.ndarray, freed_SP: np.ndarray) -> Interval:
    """A ratio of means, and its interval over seeds and problems.

    Args:
        gained_SP: numerators.
        freed_SP: denominators, with a mean above 0.
    """
    freed = freed_SP.mean()
    share = float(gained_SP.mean() / freed)
    linear = crossed_interval(share + (gained_SP - share * freed_SP) / freed)
    # A class that lost mass too, or one that gained more than was freed here.
    if not 0 < share < 1:
        return Interval(share, linear.low, linear.high)
    log_odds = math.log(share / (1 - share))
    half = (linear.high - share) / (share * (1 - share))
    return Interval(share, _from_log_odds(log_odds - half), _from_log_odds(log_odds + half))


def _from_log_odds(value: float) -> float:
    # Far out the exponential overflows.
    if value < -700:
        return 0.0
    return 1 / (1 + math.exp(-value))
