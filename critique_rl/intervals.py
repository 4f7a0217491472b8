"""Intervals and tests over few seeds and many problems, in numpy alone.

    Var(mean)  = (MS_seed + MS_problem - MS_residual) / (S P)   two-way crossed random effects
    P(|T| > t) = I_{df / (df + t^2)}(df / 2, 1 / 2)             I: regularised incomplete beta

The interval of a mean covers new seeds and new problems, by a t quantile with Satterthwaite's
degrees of freedom. Axes are suffixes: _S seeds, _P problems.

Left out: the bootstrap. Resampling five seeds understates their spread, and the assumptions of a t
interval fit on one line. Left out too: scipy, because one quantile is not worth a dependency.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike


def t_quantile(p: float, df: float) -> float:
    """The value that a Student t variable stays below with probability p, to about 1e-9.

    Args:
        p: probability, between 0 and 1.
        df: degrees of freedom, any positive number.

    Raises:
        ValueError: p or df outside its range.
    """
    if not (0 < p < 1 and df > 0):
        raise ValueError(f"t_quantile needs 0 < p < 1 and df > 0, got p={p}, df={df}")
    # Above a million degrees of freedom the normal is closer than the tolerance.
    if df > 1e6:
        return NormalDist().inv_cdf(p)
    if p < 0.5:
        return -t_quantile(1 - p, df)
    low = 0.0
    high = 1.0
    while _t_cdf(high, df) < p:
        low = high
        high = 2 * high
    # Sixty halvings take any bracket below the precision of a float.
    for _ in range(60):
        middle = (low + high) / 2
        if _t_cdf(middle, df) < p:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _t_cdf(t: float, df: float) -> float:
    """P(T < t) for t >= 0."""
    x = df / (df + t * t)
    two_sided = _incomplete_beta(x, df / 2, 0.5)
    return 1 - two_sided / 2


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    # The fraction converges fast on this side only; the other follows by symmetry.
    turning_point = (a + 1) / (a + b + 2)
    if x > turning_point:
        return 1 - _incomplete_beta(1 - x, b, a)
    log_inverse_beta = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    log_x_part = a * math.log(x)
    log_rest_part = b * math.log1p(-x)
    log_front = log_inverse_beta + log_x_part + log_rest_part
    front = math.exp(log_front)
    return front * _beta_fraction(x, a, b) / a


def _beta_fraction(x: float, a: float, b: float) -> float:
    """The continued fraction DLMF 8.17.22, by Lentz's method (Numerical Recipes 6.4).

    Raises:
        ArithmeticError: no convergence in 10,000 terms.
    """
    tiny = 1e-300
    value = 1.0
    d = 0.0
    c = 1.0
    for m in range(10_000):
        a_2m = a + 2 * m
        even = 1.0
        if m > 0:
            below = a_2m - 1
            even = m * (b - m) * x / (below * a_2m)
        above = a_2m + 1
        odd = -(a + m) * (a + b + m) * x / (a_2m * above)
        for numerator in (even, odd):
            # Lentz's method puts a tiny number in the place of a denominator of 0.
            denominator = 1 + numerator * d
            d = 1 / (denominator or tiny)
            c = (1 + numerator / c) or tiny
            factor = c * d
            value *= factor
        if abs(factor - 1) < 1e-15:
            # Evaluated as 1 + 1/(1 + ...), so that the first step has something to multiply.
            return value - 1
    raise ArithmeticError(f"the continued fraction of I_x({a}, {b}) at x={x} did not converge")


@dataclass(frozen=True)
class Design:
    """The size of a comparison of two arms."""

    problems: int
    """Held-out problems that both arms answer."""
    samples: int
    """Answers per problem, arm and seed."""
    seeds: int
    """Training seeds of each arm."""


@dataclass(frozen=True)
class Spread:
    """Assumed standard deviations of a paired difference of two pass rates, before any run."""

    problems: float = 0.3
    """Of the true difference, over problems. A tenth of all problems that flip from never right to
    always right gives .3.
    """
    seeds: float = 0.05
    """Of the true difference, over seeds."""
    rate: float = 0.5
    """Pass rate of both arms. At .5 sampled answers vary most."""


def smallest_difference(
    design: Design, spread: Spread = Spread(), power: float = 0.8, level: float = 0.95
) -> float:
    """The smallest true difference whose interval leaves out 0 with probability `power`.

    The differences follow the model of `crossed_interval`, whose expected mean squares give the
    variance of the mean and its degrees of freedom:

        d_sp = d + seed_s + problem_p + e_sp,   Var(e_sp) = 2 rate (1 - rate) / samples
        smallest = (t_{1/2 + level/2, df} + t_{power, df}) sqrt(Var(mean))

    Args:
        design: numbers of problems, samples and seeds.
        spread: what is assumed of the differences.
        power: probability, from .5 to below 1.
        level: coverage of the interval, 0 to 1.

    Returns:
        A difference of pass rates; above 1 where nothing could be shown, infinite with one seed and
        one problem.
    """
    seeds = design.seeds
    problems = design.problems
    assert min(seeds, problems, design.samples) >= 1, f"got {design}, want 1 or more of each"
    ms_residual = 2 * spread.rate * (1 - spread.rate) / design.samples
    ms_seed = problems * spread.seeds**2 + ms_residual
    ms_problem = seeds * spread.problems**2 + ms_residual
    if seeds == 1 and problems == 1:
        return math.inf
    if seeds == 1:
        # As in `crossed_interval`: one seed says nothing of other seeds.
        total = ms_problem
        df = float(problems - 1)
    elif problems == 1:
        total = ms_seed
        df = float(seeds - 1)
    else:
        df_seed = seeds - 1
        df_problem = problems - 1
        total = ms_seed + ms_problem - ms_residual
        squares = ms_seed**2 / df_seed + ms_problem**2 / df_problem
        squares += ms_residual**2 / (df_seed * df_problem)
        df = total**2 / squares
    error = math.sqrt(total / (seeds * problems))
    return (t_quantile(0.5 + level / 2, df) + t_quantile(power, df)) * error


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
    if min(values_SP.shape) > 1:
        variance, df = _crossed_variance(values_SP)
    else:
        variance, df = _independent_variance(values_SP)
    half = 0.0
    if variance > 0:
        quantile = t_quantile(0.5 + level / 2, df)
        half = quantile * math.sqrt(variance)
    return Interval(mean, mean - half, mean + half)


def _independent_variance(values: np.ndarray) -> tuple[float, float]:
    """Variance of the mean of independent values, and its degrees of freedom.

    Args:
        values: any shape, two values or more.
    """
    variance = float(values.var(ddof=1))
    return variance / values.size, values.size - 1


def _crossed_variance(values_SP: np.ndarray) -> tuple[float, float]:
    """Variance of the mean of crossed values, and its degrees of freedom.

    Args:
        values_SP: (S, P) with S and P of two or more.
    """
    seeds, problems = values_SP.shape
    df_seed = seeds - 1
    df_problem = problems - 1
    df_residual = df_seed * df_problem
    mean = values_SP.mean()
    seed_effect_S1 = values_SP.mean(axis=1, keepdims=True) - mean
    problem_effect_1P = values_SP.mean(axis=0, keepdims=True) - mean
    residual_SP = values_SP - mean - seed_effect_S1 - problem_effect_1P
    ms_seed = problems * float((seed_effect_S1**2).sum()) / df_seed
    ms_problem = seeds * float((problem_effect_1P**2).sum()) / df_problem
    ms_residual = float((residual_SP**2).sum()) / df_residual
    # The sum is unbiased, but by chance it falls below its parts, even below 0. Each mean square
    # alone estimates at most the wanted variance, so none may exceed it.
    total = max(ms_seed + ms_problem - ms_residual, ms_seed, ms_problem, ms_residual)
    # Satterthwaite: df = total^2 / sum of (mean square^2 / its df).
    spread = ms_seed**2 / df_seed
    spread += ms_problem**2 / df_problem
    spread += ms_residual**2 / df_residual
    df = total**2 / spread if spread > 0 else math.inf
    return total / values_SP.size, df


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
        bits = (np.arange(2**number)[:, None] >> np.arange(number)) & 1
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
