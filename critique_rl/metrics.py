"""Measures of an evaluation, in numpy alone: pass@k, and intervals that cover both the seeds and
the problems.

    pass@k = 1 - C(n - c, k) / C(n, k)                                        (Chen et al. 2021, eq. 1)
    Var(mean) = (MS_seed + MS_problem - MS_residual) / (S P)                  (two-way crossed random effects, Satterthwaite df)

Left out: the bootstrap. Resampling five seeds understates their spread, and the t interval's
assumptions fit on one line. scipy is left out too: one quantile is not worth a dependency.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval. `low` and `high` are NaN where one value alone says
    nothing of its spread.
    """

    mean: float
    low: float
    high: float


def pass_at_k(n: ArrayLike, c: ArrayLike, k: int) -> np.ndarray | float:
    """The unbiased chance that at least one of k samples is right, from c right among n: 1 - C(n-c,
    k) / C(n, k). NaN where n < k.

    `n` and `c` broadcast against each other; scalars give a scalar. Raises ValueError for k < 1 and
    for c outside 0..n.
    """
    n, c = np.broadcast_arrays(np.asarray(n, dtype=float), np.asarray(c, dtype=float))
    if k < 1:
        raise ValueError(f"pass@k needs k of at least 1, got k={k}")
    if np.any(c < 0) or np.any(c > n):
        raise ValueError(
            "pass@k needs 0 <= c <= n everywhere: got more right samples than samples, or fewer than none; check the counts"
        )
    miss = np.ones(n.shape)
    for i in range(k):  # C(n-c, k) / C(n, k) factor by factor: binomials overflow, ratios do not
        miss *= np.clip(n - c - i, 0, None) / np.where(n > i, n - i, np.nan)
    return (1 - miss)[()]


def crossed_interval(values_SP: ArrayLike, level: float = 0.95) -> Interval:
    """Mean of a (seeds, problems) matrix and an interval for what new seeds *and* new problems
    would give.

    The values are paired differences between two arms, or one arm's own pass@k. Every seed meets
    every problem, so the errors of a row and of a column are shared and S * P cells are not S * P
    observations:

        Var(mean) = (MS_seed + MS_problem - MS_residual) / (S P),  never below one of the three alone / (S P)

    with a t quantile at Satterthwaite's degrees of freedom. With one seed (S = 1) the interval
    covers problems only, with one problem seeds only; with one of each it is NaN. Values that never
    vary give an interval of width 0. In simulations of 95% intervals, 92% to 98% held the truth
    with three seeds or more, but 89% at worst with two.
    """
    values_SP = np.asarray(values_SP, dtype=float)
    assert values_SP.ndim == 2 and values_SP.size, (
        f"want a filled (seeds, problems) matrix, got shape {values_SP.shape}"
    )
    assert np.isfinite(values_SP).all(), (
        f"{(~np.isfinite(values_SP)).sum()} of {values_SP.size} values are not finite"
    )
    mean = float(values_SP.mean())
    if values_SP.size == 1:
        return Interval(mean, math.nan, math.nan)
    variance, df = (
        _crossed_variance(values_SP) if min(values_SP.shape) > 1 else _plain_variance(values_SP)
    )
    half = t_quantile(0.5 + level / 2, df) * math.sqrt(variance) if variance > 0 else 0.0
    return Interval(mean, mean - half, mean + half)


FEWEST_FOR_P = 8
"""Seeds under which no p-value is given: with 5 the sign-flip test cannot fall below .0625, with 8
not below .0078.
"""


def sign_flip_p(differences: ArrayLike) -> float | None:
    """Two-sided p of the exact sign-flip test: the share of all 2^S ways to sign the differences
    whose mean is as far from 0 as theirs (Fisher 1935).

    None under `FEWEST_FOR_P` differences; over 16 of them a fixed draw of 100,000 signings stands
    for all.
    """
    values = np.asarray(differences, dtype=float)
    if len(values) < FEWEST_FOR_P:
        return None
    if len(values) <= 16:
        signs = 1 - 2 * ((np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1)
    else:
        signs = np.vstack(
            [np.ones(len(values)), np.random.default_rng(0).choice((-1, 1), (100_000, len(values)))]
        )
    flipped = np.abs(signs @ values)
    return float((flipped >= abs(values.sum()) * (1 - 1e-12)).mean())


@dataclass(frozen=True)
class Bin:
    """Answers given with a confidence in (low, high], the lowest bin's 0 included: how many, their
    mean confidence, the share that was right.
    """

    low: float
    high: float
    mean: float
    right: float
    count: int


def reliability_bins(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> list[Bin]:
    """Equal-width bins of a reliability diagram, empty ones left out (Guo et al. 2017, section 2)."""
    confidence, correct = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    if len(confidence) != len(correct) or ((confidence < 0) | (confidence > 1)).any():
        raise ValueError(
            f"got {len(confidence)} confidences for {len(correct)} answers, expected one each, from 0 to 1"
        )
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    groups = [(i, confidence[which == i], correct[which == i]) for i in range(bins)]
    return [
        Bin(i / bins, (i + 1) / bins, float(of.mean()), float(right.mean()), len(of))
        for i, of, right in groups
        if len(of)
    ]


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> float:
    """Mean distance between confidence and share right over bins, weighed by their size (Guo et al.
    2017, eq. 3); NaN without answers.
    """
    found = reliability_bins(confidence, correct, bins)
    total = sum(of.count for of in found)
    return sum(of.count * abs(of.mean - of.right) for of in found) / total if total else math.nan


def brier_score(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Mean squared distance between confidence and correctness (Brier 1950): 0 at best, .25 for
    always saying .5; NaN without answers.
    """
    confidence, correct = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    return float(((confidence - correct) ** 2).mean()) if len(confidence) else math.nan


def auroc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """How often a right answer has more confidence than a wrong one, ties counting half
    (Mann-Whitney); NaN where all are right, or none.
    """
    confidence, correct = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=bool)
    right, wrong = np.sort(confidence[correct]), confidence[~correct]
    if not len(right) or not len(wrong):
        return math.nan
    above = len(right) - np.searchsorted(right, wrong, side="right")
    tied = np.searchsorted(right, wrong, side="right") - np.searchsorted(right, wrong, side="left")
    return float((above + tied / 2).mean() / len(right))


def selective_risk(confidence: ArrayLike, correct: ArrayLike, coverage: float) -> float:
    """Share of wrong answers among the surest `coverage` of all (El-Yaniv and Wiener 2010); answers
    as sure as the last one taken count by their mean.
    """
    confidence, correct = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage: got {coverage}, expected a share above 0, at most 1")
    if not len(confidence):
        return math.nan
    taken = coverage * len(confidence)
    _, which = np.unique(-confidence, return_inverse=True)  # the surest first
    sizes, wrong = np.bincount(which), np.bincount(which, weights=1 - correct)
    before = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    share = np.clip((taken - before) / sizes, 0, 1)
    return float((share * wrong).sum() / taken)


def truthfulness(outcomes: Sequence[str]) -> dict[str, float]:
    """{"accuracy", "abstention", "hallucination", "truthfulness"} of outcomes "right" | "abstained"
    | anything else, which is a hallucination.

    Truthfulness = accuracy - hallucination (TruthRL, arXiv 2509.25760, with its weights 1, 0, 1).
    Unscored answers are left out; NaN where none is left.
    """
    judged = [outcome for outcome in outcomes if outcome != "unscored"]
    if not judged:
        return dict.fromkeys(("accuracy", "abstention", "hallucination", "truthfulness"), math.nan)
    accuracy, abstention = (
        sum(outcome == name for outcome in judged) / len(judged) for name in ("right", "abstained")
    )
    hallucination = 1 - accuracy - abstention
    return {
        "accuracy": accuracy,
        "abstention": abstention,
        "hallucination": hallucination,
        "truthfulness": accuracy - hallucination,
    }


SHARES = ("truthfulness", "hallucination", "abstention", "agreement")
"""What `shares` gives of one problem; over a family it is the mean over problems, named
"<share>/<family>".
"""


def shares(n: int, right: int, abstained: int | None, agreement: float | None) -> dict[str, float]:
    """`truthfulness` of one problem's n judged samples, as counts, where the task lets answers
    abstain (None: it does not), and the agreement given.
    """
    found = {} if agreement is None else {"agreement": agreement}
    if abstained is None or not n:
        return found
    hallucination = (n - right - abstained) / n
    return found | {
        "abstention": abstained / n,
        "hallucination": hallucination,
        "truthfulness": right / n - hallucination,
    }


def t_quantile(p: float, df: float) -> float:
    """The value a Student t variable with `df` degrees of freedom (any positive number) stays below
    with probability p, to about 1e-9.
    """
    if not (0 < p < 1 and df > 0):
        raise ValueError(f"t_quantile needs 0 < p < 1 and df > 0, got p={p}, df={df}")
    if df > 1e6:  # closer to the normal than the tolerance
        return NormalDist().inv_cdf(p)
    if p < 0.5:
        return -t_quantile(1 - p, df)
    low, high = 0.0, 1.0
    while _t_cdf(high, df) < p:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_cdf(middle, df) < p else (low, middle)
    return (low + high) / 2


def _plain_variance(values: np.ndarray) -> tuple[float, float]:
    return float(values.var(ddof=1)) / values.size, values.size - 1


def _crossed_variance(values_SP: np.ndarray) -> tuple[float, float]:
    """(variance of the grand mean, degrees of freedom)."""
    seeds, problems = values_SP.shape
    df_seed, df_problem = seeds - 1, problems - 1
    seed_effect = values_SP.mean(axis=1, keepdims=True) - values_SP.mean()
    problem_effect = values_SP.mean(axis=0, keepdims=True) - values_SP.mean()
    residual = values_SP - values_SP.mean() - seed_effect - problem_effect
    ms_seed = problems * float((seed_effect**2).sum()) / df_seed
    ms_problem = seeds * float((problem_effect**2).sum()) / df_problem
    ms_residual = float((residual**2).sum()) / (df_seed * df_problem)
    # Unbiased, but by chance it falls below its parts, even below 0. Each mean square alone
    # estimates at most what we want, so none may exceed it.
    total = max(ms_seed + ms_problem - ms_residual, ms_seed, ms_problem, ms_residual)
    spread = (
        ms_seed**2 / df_seed + ms_problem**2 / df_problem + ms_residual**2 / (df_seed * df_problem)
    )
    return total / values_SP.size, total**2 / spread if spread > 0 else math.inf


def _t_cdf(t: float, df: float) -> float:
    """P(T < t) for t >= 0, through the incomplete beta function: P(|T| > t) = I_{df / (df +
    t^2)}(df / 2, 1 / 2).
    """
    return 1 - _incomplete_beta(df / (df + t * t), df / 2, 0.5) / 2


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised I_x(a, b), by its continued fraction on the side where that converges fast."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(1 - x, b, a)
    log_front = (
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    return math.exp(log_front) * _beta_fraction(x, a, b) / a


def _beta_fraction(x: float, a: float, b: float) -> float:
    """Lentz's evaluation of the continued fraction DLMF 8.17.22 (as in Numerical Recipes 6.4)."""
    tiny, value, d, c = 1e-300, 1.0, 0.0, 1.0
    for m in range(10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)) if m else 1.0
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for numerator in (even, odd):
            d = 1 / ((1 + numerator * d) or tiny)
            c = (1 + numerator / c) or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            return (
                value - 1
            )  # evaluated as 1 + 1/(1 + ...), so that the first step has something to multiply
    raise ArithmeticError(f"the continued fraction of I_x({a}, {b}) at x={x} did not converge")


EVALUATION_METRICS = ("ece", "brier", "auroc", "truthfulness", "hallucination", "abstention")
"""Metrics of a whole evaluation: they have no value a problem, so their intervals are over seeds
alone.
"""
