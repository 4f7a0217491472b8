"""Means over few seeds and many problems, and tests of them.

    Var(mean)  = (MS_seed + MS_problem - MS_residual) / (S P)   two-way crossed random effects

The interval of a mean covers new seeds and new problems, by a t quantile with Satterthwaite's
degrees of freedom. Axes are suffixes: _S seeds, _P problems.

Left out: the bootstrap. Resampling five seeds understates their spread, and the assumptions of a t
interval fit on one line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from critique_rl.intervals.quantiles import t_quantile

FEWEST_FOR_P = 8
"""Fewest seeds for a p-value. With 5 seeds the sign-flip test cannot fall below .0625, with 8 it
reaches .0078.
"""


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval, in the unit of the values."""

    mean: float
    """The mean of all values."""
    low: float
    """Lower end; NaN if there is one value only, which has no spread."""
    high: float
    """Upper end; NaN like `low`."""


def crossed_interval(values_SP: ArrayLike, level: float = 0.95) -> Interval:
    """Mean over seeds and problems, and an interval for the mean over new seeds *and* new problems.

    The values are paired differences between two arms, or the pass@k of one arm. Every seed meets
    every problem, so a seed's error is shared by its row and a problem's error by its column.
    S * P cells are therefore fewer than S * P independent observations:

        Var(mean) = (MS_seed + MS_problem - MS_residual) / (S P)

    No mean square alone may exceed the sum. The interval is a t interval with Satterthwaite's
    degrees of freedom. In simulations of 95% intervals, 92% to 98% held the truth with three seeds
    or more, and 89% at worst with two.

    Args:
        values_SP: (S, P), one row per seed, one column per problem; finite.
        level: coverage, 0 to 1.

    Returns:
        The mean and its interval. One seed: it covers new problems only; one problem: new seeds
        only; one of each: NaN. Values that never vary give width 0.
    """
    values_SP = np.asarray(values_SP, dtype=float)
    filled = values_SP.ndim == 2 and values_SP.size > 0
    assert filled, f"want a filled (seeds, problems) matrix, got shape {values_SP.shape}"
    assert np.isfinite(values_SP).all(), (
        f"{(~np.isfinite(values_SP)).sum()} of {values_SP.size} values are not finite"
    )
    mean = float(values_SP.mean())
    if values_SP.size == 1:
        return Interval(mean, math.nan, math.nan)
    variance, df = variance_of_mean(values_SP)
    half = 0.0
    if variance > 0:
        quantile = t_quantile(0.5 + level / 2, df)
        half = quantile * math.sqrt(variance)
    return Interval(mean, mean - half, mean + half)


def variance_of_mean(values_SP: np.ndarray) -> tuple[float, float]:
    """Variance of the mean over new seeds and new problems, and its degrees of freedom.

    Args:
        values_SP: (S, P), of two values or more; a single row or column is a plain sample.
    """
    if min(values_SP.shape) > 1:
        return mean_squares(values_SP).variance_of_mean()
    return _independent_variance(values_SP)


def _independent_variance(values: np.ndarray) -> tuple[float, float]:
    """Variance of the mean of independent values, and its degrees of freedom.

    Args:
        values: any shape, two values or more.
    """
    variance = float(values.var(ddof=1))
    return variance / values.size, values.size - 1


@dataclass(frozen=True)
class MeanSquares:
    """Of crossed values, or those that are expected of a design."""

    seed: float
    problem: float
    residual: float
    seeds: int
    problems: int

    def variance_of_mean(self) -> tuple[float, float]:
        """Variance of the mean, and its degrees of freedom by Satterthwaite."""
        df_seed = self.seeds - 1
        df_problem = self.problems - 1
        # The sum is unbiased, but by chance it falls below its parts, even below 0. Each mean
        # square alone estimates at most the wanted variance, so none may exceed it.
        total = self.seed + self.problem - self.residual
        total = max(total, self.seed, self.problem, self.residual)
        # Satterthwaite: df = total^2 / sum of (mean square^2 / its df).
        spread = self.seed**2 / df_seed
        spread += self.problem**2 / df_problem
        spread += self.residual**2 / (df_seed * df_problem)
        df = total**2 / spread if spread > 0 else math.inf
        return total / (self.seeds * self.problems), df


def mean_squares(values_SP: np.ndarray) -> MeanSquares:
    """The mean squares of seeds, problems and the rest.

    Args:
        values_SP: (S, P) with S and P of two or more.
    """
    seeds, problems = values_SP.shape
    mean = values_SP.mean()
    seed_effect_S1 = values_SP.mean(axis=1, keepdims=True) - mean
    problem_effect_1P = values_SP.mean(axis=0, keepdims=True) - mean
    residual_SP = values_SP - mean - seed_effect_S1 - problem_effect_1P
    df_residual = (seeds - 1) * (problems - 1)
    return MeanSquares(
        seed=problems * float((seed_effect_S1**2).sum()) / (seeds - 1),
        problem=seeds * float((problem_effect_1P**2).sum()) / (problems - 1),
        residual=float((residual_SP**2).sum()) / df_residual,
        seeds=seeds,
        problems=problems,
    )


def sign_flip_p(differences: ArrayLike) -> float | None:
    """Two-sided p of the exact sign-flip test (Fisher 1935).

    p is the share of all 2^S ways to sign the differences whose sum is at least as far from 0 as
    the observed sum.

    Args:
        differences: (S,), one paired difference per seed.

    Returns:
        p, or None with fewer than `FEWEST_FOR_P` differences. Over 16 differences a fixed draw of
        100,000 signings stands for all.
    """
    values = np.asarray(differences, dtype=float)
    number = len(values)
    if number < FEWEST_FOR_P:
        return None
    if number <= 16:
        # Row i holds the bits of i as signs, so the rows are all 2^S signings.
        numbers = np.arange(2**number)[:, None]
        bits = (numbers >> np.arange(number)) & 1
        signs = 1 - 2 * bits
    else:
        rng = np.random.default_rng(0)
        drawn = rng.choice((-1, 1), (100_000, number))
        # The observed signing belongs to the set, so that p is never 0.
        signs = np.vstack([np.ones(number), drawn])
    flipped = np.abs(signs @ values)
    # The tolerance counts sums as equal that differ by rounding only.
    observed = abs(values.sum()) * (1 - 1e-12)
    return float((flipped >= observed).mean())
