"""Seeds of which some take off or collapse: two statements in place of one mean.

Where a seed takes off with some chance, the mean over seeds is a mixture, and no interval around it
holds: five seeds of which none took off look sure of themselves. So the share of seeds that took
off gets an exact binomial interval, and the level among those an interval of its own. Seeds that
collapse have the same two: their share, and the level of those that did not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from critique_rl.intervals.crossed import Interval
from critique_rl.intervals.shares import binomial_interval

TAKE_OFF = 0.1
"""A seed took off where it is this much over the start, and collapsed where it is as much under."""


@dataclass(frozen=True)
class SeedSplit:
    """The seeds of one arm on one metric, against the policy before training."""

    start: float
    """The metric before training."""
    levels: tuple[float, ...]
    """(S,) means over problems, in the order of the seeds."""
    share: tuple[float, float]
    """95% interval of the chance that a seed takes off."""
    among: Interval | None
    """Mean and interval among the seeds that took off; None where none did, NaN ends for one."""
    collapse_share: tuple[float, float]
    """95% interval of the chance that a seed collapses."""
    kept: Interval | None
    """Of the seeds that did not collapse, as `among`; None where none or all collapsed."""

    @property
    def took_off(self) -> int:
        """Seeds at least `TAKE_OFF` over the start."""
        return sum(has_taken_off(level, self.start) for level in self.levels)

    @property
    def collapsed(self) -> int:
        """Seeds at least `TAKE_OFF` under the start."""
        return sum(has_collapsed(level, self.start) for level in self.levels)

    @property
    def median(self) -> float:
        """Of the seeds' levels."""
        return median(self.levels)


def has_taken_off(level: float, start: float) -> bool:
    """Whether a seed's level is at least `TAKE_OFF` over the start."""
    return level >= start + TAKE_OFF


def has_collapsed(level: float, start: float) -> bool:
    """Whether a seed's level is at least `TAKE_OFF` under the start."""
    return level <= start - TAKE_OFF


def split_seeds(
    levels: Sequence[float], start: float, among: Interval | None, kept: Interval | None = None
) -> SeedSplit:
    """Which seeds took off, and which collapsed.

    Args:
        levels: (S,) means over problems.
        start: the metric of the policy before training.
        among: of the seeds that took off, None for none. Of a single seed only its mean stays,
            for its interval would be about new problems alone.
        kept: of the seeds that did not collapse, where others did; likewise.
    """
    number = len(levels)
    risen = sum(has_taken_off(level, start) for level in levels)
    fallen = sum(has_collapsed(level, start) for level in levels)
    if risen == 1 and among is not None:
        among = Interval(among.mean, math.nan, math.nan)
    if number - fallen == 1 and kept is not None:
        kept = Interval(kept.mean, math.nan, math.nan)
    return SeedSplit(
        start=start,
        levels=tuple(levels),
        share=binomial_interval(risen, number),
        among=among,
        collapse_share=binomial_interval(fallen, number),
        kept=kept,
    )


def excluded_chance(seeds: int, level: float = 0.95) -> float:
    """The chance of what no seed did, from which on not seeing it is less likely than 1 - level.

    Args:
        seeds: how many there were.
        level: confidence, 0 to 1.
    """
    miss = 1 - level
    of_one_seed = miss ** (1 / seeds)
    return 1 - of_one_seed
