"""Intervals and tests over few seeds and many problems."""

from critique_rl.intervals.crossed import Interval, crossed_interval, sign_flip_p
from critique_rl.intervals.planning import Design, Spread, seeds_to_decide, smallest_difference
from critique_rl.intervals.quantiles import beta_quantile, t_quantile
from critique_rl.intervals.seeds import SeedSplit, excluded_chance, split_seeds
from critique_rl.intervals.shares import share_contrast_interval, share_interval
from critique_rl.intervals.simultaneous import joint_level

__all__ = [
    "Design",
    "Interval",
    "SeedSplit",
    "Spread",
    "beta_quantile",
    "crossed_interval",
    "excluded_chance",
    "joint_level",
    "seeds_to_decide",
    "share_contrast_interval",
    "share_interval",
    "sign_flip_p",
    "smallest_difference",
    "split_seeds",
    "t_quantile",
]
