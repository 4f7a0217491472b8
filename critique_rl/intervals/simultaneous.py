"""Intervals that hold together: for what is chosen after the fact, such as the best of many arms.

A set of K intervals at the level L = P(|T| < c) holds as a whole with probability .95, where c is
the .95 quantile of max over k of |T_k|, and T is a multivariate t with the correlations of the K
means (max-t; Hothorn, Bretz and Westfall 2008, Biometrical Journal 50). The quantile is by
simulation with a fixed seed. Without correlations it would be Sidak's.
"""

from __future__ import annotations

import math

import numpy as np

from critique_rl.intervals.crossed import variance_of_mean
from critique_rl.intervals.quantiles import t_probability
from critique_rl.intervals.shares import correlations

DRAWS = 20_000


def joint_level(differences_KSP: np.ndarray, level: float = 0.95) -> float:
    """The level of each of K intervals, at which all hold together with probability `level`.

    Args:
        differences_KSP: (K, S, P), of the same seeds and problems.
        level: of all together, 0 to 1.
    """
    number = len(differences_KSP)
    # One seed and one problem say nothing of the spread.
    if differences_KSP[0].size == 1:
        return level
    spreads = [variance_of_mean(values_SP) for values_SP in differences_KSP]
    moving = [k for k in range(number) if spreads[k][0] > 0]
    if number == 1 or not moving:
        return level
    # The least degrees of freedom of all: the set is then too wide rather than too narrow.
    df = max(1.0, min(spreads[k][1] for k in moving))
    correlation_KK = correlations(differences_KSP[moving])
    rng = np.random.default_rng(0)
    values, vectors = np.linalg.eigh(correlation_KK)
    # Rounding may turn an eigenvalue of 0 into one below it.
    positive_K = np.clip(values, 0, None)
    root_KK = vectors * np.sqrt(positive_K)
    independent_DK = rng.standard_normal((DRAWS, len(moving)))
    normal_DK = independent_DK @ root_KK.T
    scale_D = np.ones(DRAWS)
    if math.isfinite(df):
        chi_D = rng.chisquare(df, DRAWS)
        scale_D = np.sqrt(chi_D / df)
    largest_D = np.abs(normal_DK).max(axis=1)
    largest_D = largest_D / scale_D
    quantile = float(np.quantile(largest_D, level))
    one_sided = t_probability(quantile, df)
    return max(level, 2 * one_sided - 1)
