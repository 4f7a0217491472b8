"""Intervals of shares: pass rates over few seeds and many problems, and contrasts of them.

A t interval fails where a share is near 0 or 1, or comes from a few problems: at a rate of .001 a
95% interval may hold the truth in .15 of draws (`tests/benchmarks/interval_coverage.py`). Two
things mend it.

**An effective number of answers** (Korn and Graubard 1998, Survey Methodology 24): the variance v
that the crossed model gives stands for m (1 - m) / v independent answers, fewer where v has few
degrees of freedom. Their interval is the exact one of Clopper and Pearson (1934).

**Problems not met.** A few problems that are solved, or none, say little of how many more there
are: the estimate of v is itself a sample, and is small where the share is. So a pseudo-problem that
is always solved adds to v, and one that never is, as long as fewer than five problems are of its
kind:

    v' = v + (w1 (1 - m)^2 + w0 m^2) / P^2,   w = min(1, 5 / number of problems of that kind)

and the effective number is never below P, as of P problems that are all solved or not at all.

A contrast of arms, such as one minus another, takes the wider of two intervals at each end. One is
the t interval with the same pseudo-problems. The other is MOVER (Zou and Donner 2008, Statistics in
Medicine 27): it is built from the intervals of the arms' shares and the correlations of their
means, and has a width where nothing varies:

    below = sqrt(sum over arms i, j of c_i c_j r_ij d_i d_j),   d: from an arm's mean to its end
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from critique_rl.intervals.crossed import Interval, variance_of_mean
from critique_rl.intervals.quantiles import beta_quantile, t_quantile

FEW_PROBLEMS = 5
"""Problems of one kind, from which on their number is as good as known."""
LARGE_CHANGE = 0.25
"""A problem whose pass rate changes by as much counts as one that changes."""
ROUNDING = 1e-9
"""By which a mean of shares may leave [0, 1]."""
FEW_SEEDS = {2: 0.4, 3: 0.6}
"""Two or three seeds often agree by chance, and their spread then looks like none: with two a level
of .95 is worked out as one of 1 - .4 (1 - .95), with three as one of 1 - .6 (1 - .95). Otherwise
two seeds hold the truth in .88 of draws, and three on 300 problems in .92 (the same script).
"""


def share_interval(values_SP: ArrayLike, tries: float = 1.0, level: float = 0.95) -> Interval:
    """The mean of shares, and an interval inside [0, 1] for new seeds and new problems.

    Args:
        values_SP: (S, P), each a share of `tries` tries: one row per seed, one column per problem.
        tries: tries behind each value: answers for pass@1, answers / k for pass@k.
        level: coverage, 0 to 1.

    Returns:
        The mean and its interval, which has a width wherever the data are finite. One seed: it
        covers new problems only; one problem: new seeds only; one value: NaN.
    """
    values_SP = np.asarray(values_SP, dtype=float)
    _check(values_SP)
    mean = float(np.clip(values_SP.mean(), 0.0, 1.0))
    if values_SP.size == 1:
        return Interval(mean, math.nan, math.nan)
    level = _careful(level, values_SP)
    number = _effective_number(values_SP, tries, level)
    low, high = binomial_interval(mean * number, number, level)
    return Interval(mean, low, high)


def share_contrast_interval(
    coefficients_A: Sequence[float], values_ASP: ArrayLike, tries: float = 1.0, level: float = 0.95
) -> Interval:
    """The mean of a linear combination of arms' shares, and an interval inside its range.

    Args:
        coefficients_A: of the arms, such as (1, -1) for a paired difference.
        values_ASP: (A, S, P), each arm's as `share_interval` takes them, on the same seeds and
            problems.
        tries: tries behind each value.
        level: coverage, 0 to 1.

    Returns:
        For new seeds and new problems, as `share_interval` says.
    """
    values_ASP = np.asarray(values_ASP, dtype=float)
    weights_A = np.asarray(coefficients_A, dtype=float)
    for arm_SP in values_ASP:
        _check(arm_SP)
    contrast_SP = np.tensordot(weights_A, values_ASP, axes=1)
    mean = float(contrast_SP.mean())
    if contrast_SP.size == 1:
        return Interval(mean, math.nan, math.nan)
    least = float(np.minimum(weights_A, 0).sum())
    most = float(np.maximum(weights_A, 0).sum())
    careful = _careful(level, contrast_SP)
    t_low, t_high = _t_ends(contrast_SP, least, most, careful)
    mover_low, mover_high = _mover_ends(weights_A, values_ASP, tries, level)
    low = max(min(t_low, mover_low), least)
    high = min(max(t_high, mover_high), most)
    return Interval(mean, low, high)


def binomial_interval(right: float, number: float, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share (Clopper and Pearson 1934), for counts that may be fractions.

    Args:
        right: 0 to `number`.
        number: above 0.
        level: coverage, 0 to 1.
    """
    tail = (1 - level) / 2
    low = 0.0
    high = 1.0
    if right > 0:
        low = beta_quantile(tail, right, number - right + 1)
    if right < number:
        high = beta_quantile(1 - tail, right + 1, number - right)
    return low, high


def _check(values_SP: np.ndarray) -> None:
    """Refuse what is no matrix (S, P) of shares."""
    filled = values_SP.ndim == 2 and values_SP.size > 0
    assert filled, f"want a filled (seeds, problems) matrix, got shape {values_SP.shape}"
    assert np.isfinite(values_SP).all(), (
        f"{(~np.isfinite(values_SP)).sum()} of {values_SP.size} values are not finite"
    )
    inside = values_SP.min() >= -ROUNDING and values_SP.max() <= 1 + ROUNDING
    assert inside, f"want shares, got values from {values_SP.min()} to {values_SP.max()}"


def _careful(level: float, values_SP: np.ndarray) -> float:
    """The level that an interval of (S, P) values is worked out with: higher for few seeds."""
    factor = FEW_SEEDS.get(len(values_SP), 1.0)
    return 1 - factor * (1 - level)


def _effective_number(values_SP: np.ndarray, tries: float, level: float) -> float:
    """Independent answers that say as much of the mean as these (S, P) shares do."""
    seeds, problems = values_SP.shape
    mean = float(values_SP.mean())
    variance, df = variance_of_mean(values_SP)
    # A problem that is always solved, or never, is one answer, however many were sampled.
    if not 0 < mean < 1:
        return float(problems)
    measured = 0.0
    if variance > 0:
        widening = _widening(df, level)
        measured = variance * widening**2
    rate_P = values_SP.mean(axis=0)
    solved = int((rate_P > 0).sum())
    unsolved = int((rate_P < 1).sum())
    unmet = _weight(solved) * (1 - mean) ** 2
    unmet += _weight(unsolved) * mean**2
    unmet /= problems**2
    spread = mean * (1 - mean)
    plain = math.inf
    if measured > 0:
        plain = spread / measured
    careful = spread / (measured + unmet)
    careful = max(float(problems), careful)
    number = min(plain, careful)
    answers = seeds * problems * max(tries, 1.0)
    return min(number, answers)


def _widening(df: float, level: float) -> float:
    """A t quantile over the normal one."""
    p = 0.5 + level / 2
    quantile = t_quantile(p, max(df, 1.0))
    normal = t_quantile(p, math.inf)
    return quantile / normal


def _weight(number: int) -> float:
    """Of a pseudo-problem, by the number of problems of its kind."""
    return min(1.0, FEW_PROBLEMS / max(number, 1))


def _t_ends(
    contrast_SP: np.ndarray, least: float, most: float, level: float
) -> tuple[float, float]:
    """A t interval, wider towards a change that too few problems show.

    Args:
        contrast_SP: (S, P), each from `least` to `most`.
        least: the value of a pseudo-problem below.
        most: the value of a pseudo-problem above.
        level: coverage, 0 to 1.
    """
    problems = contrast_SP.shape[1]
    mean = float(contrast_SP.mean())
    variance, df = variance_of_mean(contrast_SP)
    of_problem_P = contrast_SP.mean(axis=0)
    risen = int((of_problem_P >= LARGE_CHANGE).sum())
    fallen = int((of_problem_P <= -LARGE_CHANGE).sum())
    up = _weight(risen)
    down = _weight(fallen)
    p = 0.5 + level / 2
    measured = 0.0
    if variance > 0:
        quantile = t_quantile(p, max(df, 1.0))
        measured = variance * quantile**2
    normal = t_quantile(p, math.inf)
    jump = normal * (most - mean) / problems
    fall = normal * (mean - least) / problems
    above = measured + up * jump**2
    below = measured + down * fall**2
    low = mean - math.sqrt(below)
    high = mean + math.sqrt(above)
    return low, high


def _mover_ends(
    weights_A: np.ndarray, values_ASP: np.ndarray, tries: float, level: float
) -> tuple[float, float]:
    """The interval of a contrast from those of its arms' shares (A, S, P)."""
    means = []
    below = []
    above = []
    for weight, arm_SP in zip(weights_A, values_ASP, strict=True):
        interval = share_interval(arm_SP, tries, level)
        to_low = interval.mean - interval.low
        to_high = interval.high - interval.mean
        means.append(interval.mean)
        # The contrast is low where an arm with a positive weight is low, or one with a negative
        # weight is high.
        if weight > 0:
            below.append(to_low)
            above.append(to_high)
        else:
            below.append(to_high)
            above.append(to_low)
    mean = float(weights_A @ np.array(means))
    correlation_AA = correlations(values_ASP)
    ends = []
    for distances in (below, above):
        weighted_A = weights_A * np.array(distances)
        square = float(weighted_A @ correlation_AA @ weighted_A)
        square = max(square, 0.0)
        ends.append(math.sqrt(square))
    to_low, to_high = ends
    return mean - to_low, mean + to_high


def correlations(values_ASP: np.ndarray) -> np.ndarray:
    """(A, A) correlations of the arms' means over new seeds and problems.

    0 beside an arm that does not vary.
    """
    arms = len(values_ASP)
    variances = []
    for arm_SP in values_ASP:
        variance, _ = variance_of_mean(arm_SP)
        variances.append(variance)
    correlation_AA = np.eye(arms)
    for i in range(arms):
        for j in range(i):
            product = variances[i] * variances[j]
            if product <= 0:
                continue
            difference_SP = values_ASP[i] - values_ASP[j]
            of_difference, _ = variance_of_mean(difference_SP)
            covariance = (variances[i] + variances[j] - of_difference) / 2
            value = covariance / math.sqrt(product)
            value = np.clip(value, -1.0, 1.0)
            correlation_AA[i, j] = value
            correlation_AA[j, i] = value
    return correlation_AA
