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

DRAWS = 20_000


def joint_level(differences_KSP: np.ndarray, level: float = 0.95) -> float:
    """The level of each of K intervals, at which all hold together with probability `level`.

    Args:
        differences_KSP: (K, S, P), of the same seeds and problems.
        level: of all together, 0 to 1.
    """
    number = len(differences_KSP)
    spreads = [variance_of_mean(values_SP) for values_SP in differences_KSP]
    moving = [k for k in range(number) if spreads[k][0] > 0]
    if number == 1 or not moving:
        return level
    # The least degrees of freedom of all: the set is then too wide rather than too narrow.
    df = min(spreads[k][1] for k in moving)
    df = min(max(df, 1.0), 1e6)
    correlation_KK = _correlations(differences_KSP[moving], [spreads[k][0] for k in moving])
    rng = np.random.default_rng(0)
    values, vectors = np.linalg.eigh(correlation_KK)
    root_KK = vectors * np.sqrt(np.clip(values, 0, None))
    normal_DK = rng.standard_normal((DRAWS, len(moving))) @ root_KK.T
    scale_D = np.sqrt(rng.chisquare(df, DRAWS) / df)
    largest_D = np.abs(normal_DK).max(axis=1) / scale_D
    quantile = float(np.quantile(largest_D, level))
    return max(level, 2 * t_probability(quantile, df) - 1)


def _correlations(differences_KSP: np.ndarray, variances: list[float]) -> np.ndarray:
    """(K, K) correlations of the means over new seeds and problems."""
    number = len(differences_KSP)
    correlation_KK = np.eye(number)
    for i in range(number):
        for j in range(i):
            of_gap, _ = variance_of_mean(differences_KSP[i] - differences_KSP[j])
            covariance = (variances[i] + variances[j] - of_gap) / 2
            value = covariance / math.sqrt(variances[i] * variances[j])
            correlation_KK[i, j] = np.clip(value, -1, 1)
            correlation_KK[j, i] = correlation_KK[i, j]
    return correlation_KK
