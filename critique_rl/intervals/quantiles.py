"""Quantiles of Student's t and of the beta distribution, by scipy, with bounds checked."""

from __future__ import annotations

import math

from scipy.special import betaincinv, ndtri, stdtr, stdtrit


def t_quantile(p: float, df: float) -> float:
    """The value that a Student t variable stays below with probability p.

    Args:
        p: probability, between 0 and 1.
        df: degrees of freedom, any positive number; infinite is the normal.

    Raises:
        ValueError: p or df outside its range.
    """
    if not (0 < p < 1 and df > 0):
        raise ValueError(f"t_quantile needs 0 < p < 1 and df > 0, got p={p}, df={df}")
    if math.isinf(df):
        return float(ndtri(p))
    return float(stdtrit(df, p))


def t_probability(t: float, df: float) -> float:
    """P(T < t) of a Student t variable with any positive number of degrees of freedom."""
    return float(stdtr(df, t))


def beta_quantile(p: float, a: float, b: float) -> float:
    """The value that a beta variable stays below with probability p.

    Args:
        p: probability, between 0 and 1.
        a: first shape, any positive number.
        b: second shape, any positive number.

    Raises:
        ValueError: an argument outside its range.
    """
    if not (0 < p < 1 and a > 0 and b > 0):
        raise ValueError(f"beta_quantile needs 0 < p < 1 and a, b > 0, got p={p}, a={a}, b={b}")
    return float(betaincinv(a, b, p))
