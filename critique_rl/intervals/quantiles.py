"""Quantiles of Student's t and of the beta distribution, in numpy alone.

    P(|T| > t) = I_{df / (df + t^2)}(df / 2, 1 / 2)             I: regularised incomplete beta

Left out: scipy, because two quantiles are not worth a dependency.
"""

from __future__ import annotations

import math
from statistics import NormalDist


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
    while t_probability(high, df) < p:
        low = high
        high = 2 * high
    # Sixty halvings take any bracket below the precision of a float.
    for _ in range(60):
        middle = (low + high) / 2
        if t_probability(middle, df) < p:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def t_probability(t: float, df: float) -> float:
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


def beta_quantile(p: float, a: float, b: float) -> float:
    """The value that a beta variable stays below with probability p, to about 1e-12.

    Args:
        p: probability, between 0 and 1.
        a: first shape, any positive number.
        b: second shape, any positive number.

    Raises:
        ValueError: an argument outside its range.
    """
    if not (0 < p < 1 and a > 0 and b > 0):
        raise ValueError(f"beta_quantile needs 0 < p < 1 and a, b > 0, got p={p}, a={a}, b={b}")
    low = 0.0
    high = 1.0
    # Halvings of [0, 1] reach 2^-60; a quantile near 0 needs no more for an interval of a share.
    for _ in range(60):
        middle = (low + high) / 2
        if _incomplete_beta(middle, a, b) < p:
            low = middle
        else:
            high = middle
    return (low + high) / 2
