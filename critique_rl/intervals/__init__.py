"""Intervals and tests over few seeds and many problems."""

from critique_rl.intervals.crossed import Interval, crossed_interval, sign_flip_p
from critique_rl.intervals.planning import Design, Spread, smallest_difference
from critique_rl.intervals.quantiles import beta_quantile, t_quantile
from critique_rl.intervals.shares import share_contrast_interval, share_interval

__all__ = [
    "Design",
    "Interval",
    "Spread",
    "beta_quantile",
    "crossed_interval",
    "share_contrast_interval",
    "share_interval",
    "sign_flip_p",
    "smallest_difference",
    "t_quantile",
]
