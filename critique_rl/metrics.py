"""Measures of an evaluation, in numpy alone. Their intervals are in `intervals`.

    pass@k = 1 - C(n - c, k) / C(n, k)      Chen et al. 2021, eq. 1

Calibration (ECE, Brier, AUROC, selective risk) compares stated confidence with correctness. Axes
are suffixes: _A answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

EVALUATION_METRICS = ("ece", "brier", "auroc", "truthfulness", "hallucination", "abstention")
"""Metrics of an evaluation as one unit: without values per problem, intervals cover seeds alone."""

ALARMING_LOSS = 0.05
"""Share of answers that the verifier lost from which on it is told."""
SHARES = ("truthfulness", "hallucination", "abstention", "agreement")
"""Names in `shares`. Over a family, each is the mean over problems, named "<share>/<family>"."""

# ---- pass@k and means over seeds and problems ----------------------------------------------------


def pass_at_k(n: ArrayLike, c: ArrayLike, k: int) -> np.ndarray | float:
    """Unbiased estimate of the chance that at least one of k samples is right.

    1 - C(n - c, k) / C(n, k): Chen et al. 2021 (arXiv 2107.03374), eq. 1.

    Args:
        n: samples per problem, any shape.
        c: right samples per problem; broadcasts against `n`.
        k: samples per try, from 1.

    Returns:
        The chances, in the broadcast shape; a scalar for scalars. NaN where n < k.

    Raises:
        ValueError: k < 1, or c outside 0..n.
    """
    n = np.asarray(n, dtype=float)
    c = np.asarray(c, dtype=float)
    n, c = np.broadcast_arrays(n, c)
    if k < 1:
        raise ValueError(f"pass@k needs k of at least 1, got k={k}")
    if np.any(c < 0) or np.any(c > n):
        raise ValueError(
            "pass@k needs 0 <= c <= n everywhere: got more right samples than samples,"
            " or fewer than none; check the counts"
        )
    all_wrong = np.ones(n.shape)
    # C(n - c, k) / C(n, k) is taken factor by factor: binomials overflow, their ratios do not.
    for i in range(k):
        wrong_left = np.clip(n - c - i, 0, None)
        left = np.where(n > i, n - i, np.nan)
        all_wrong *= wrong_left / left
    # Indexing with () turns an array without axes into a scalar.
    return (1 - all_wrong)[()]


def exact_pass_at_k(chance: float, k: int) -> float:
    """The chance that at least one of k samples is right: 1 - (1 - p)^k.

    Args:
        chance: p, of one right sample, 0 to 1.
        k: samples per try, from 1.
    """
    if chance >= 1:
        return 1.0
    # 1 - (1 - p)^k itself would lose a p under 1e-16.
    return -math.expm1(k * math.log1p(-chance))


# ---- calibration: stated confidence against correctness ------------------------------------------


@dataclass(frozen=True)
class Bin:
    """Answers whose confidence lies in (low, high]; the lowest bin holds 0 too."""

    low: float
    """Lower bound of the confidence, 0 to 1."""
    high: float
    """Upper bound of the confidence, 0 to 1."""
    mean: float
    """Mean confidence of the answers."""
    right: float
    """Share of right answers, 0 to 1."""
    count: int
    """Number of answers."""


def reliability_bins(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> list[Bin]:
    """Equal-width bins of a reliability diagram (Guo et al. 2017, section 2), without empty ones.

    Args:
        confidence: (A,), one confidence per answer, 0 to 1.
        correct: (A,), 1 or True for a right answer, 0 or False for a wrong one.
        bins: number of bins.

    Raises:
        ValueError: the lengths differ, or a confidence is outside 0..1.
    """
    confidence_A = np.asarray(confidence, dtype=float)
    correct_A = np.asarray(correct, dtype=float)
    outside = (confidence_A < 0) | (confidence_A > 1)
    if len(confidence_A) != len(correct_A) or outside.any():
        raise ValueError(
            f"got {len(confidence_A)} confidences for {len(correct_A)} answers,"
            " expected one per answer, from 0 to 1"
        )
    # Confidence 0 would fall below the first bin, whose lower bound is open.
    bin_A = np.ceil(confidence_A * bins).astype(int) - 1
    bin_A = np.clip(bin_A, 0, bins - 1)
    filled = []
    for i in range(bins):
        members = bin_A == i
        count = int(members.sum())
        if count == 0:
            continue
        low = i / bins
        high = (i + 1) / bins
        mean = float(confidence_A[members].mean())
        right = float(correct_A[members].mean())
        filled.append(Bin(low, high, mean, right, count))
    return filled


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> float:
    """Mean distance between confidence and accuracy over bins (Guo et al. 2017, eq. 3).

    Args:
        confidence: (A,), one confidence per answer, 0 to 1.
        correct: (A,), right or wrong.
        bins: number of equal-width bins.

    Returns:
        The distance, 0 to 1, each bin weighed by its number of answers; NaN without answers.

    Raises:
        ValueError: as `reliability_bins`.
    """
    filled = reliability_bins(confidence, correct, bins)
    if not filled:
        return math.nan
    total = sum(group.count for group in filled)
    distances = [group.count * abs(group.mean - group.right) for group in filled]
    return sum(distances) / total


def brier_score(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Mean squared distance between confidence and correctness (Brier 1950).

    Args:
        confidence: (A,), one confidence per answer, 0 to 1.
        correct: (A,), right or wrong.

    Returns:
        The score: 0 is best, .25 is earned by always saying .5, 1 is worst; NaN without answers.
    """
    confidence_A = np.asarray(confidence, dtype=float)
    correct_A = np.asarray(correct, dtype=float)
    if not len(confidence_A):
        return math.nan
    errors_A = confidence_A - correct_A
    return float((errors_A**2).mean())


def auroc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """How often a right answer has more confidence than a wrong one (Mann-Whitney).

    Args:
        confidence: (A,), one confidence per answer.
        correct: (A,), right or wrong.

    Returns:
        The share of (right, wrong) pairs, ties counting half; .5 is chance. NaN if no answer or
        every answer is right.
    """
    confidence_A = np.asarray(confidence, dtype=float)
    correct_A = np.asarray(correct, dtype=bool)
    right = np.sort(confidence_A[correct_A])
    wrong = confidence_A[~correct_A]
    if not len(right) or not len(wrong):
        return math.nan
    # Per wrong answer, from the sorted right ones: a count of pairs in A log A, not A^2.
    at_most = np.searchsorted(right, wrong, side="right")
    below = np.searchsorted(right, wrong, side="left")
    above = len(right) - at_most
    tied = at_most - below
    return float((above + tied / 2).mean() / len(right))


def selective_risk(confidence: ArrayLike, correct: ArrayLike, coverage: float) -> float:
    """Share of wrong answers among the surest ones (El-Yaniv and Wiener 2010).

    Args:
        confidence: (A,), one confidence per answer.
        correct: (A,), right or wrong.
        coverage: share of all answers that is kept, surest first; above 0, at most 1.

    Returns:
        The share, 0 to 1; NaN without answers. Answers that tie at the last kept confidence count
        by their mean.

    Raises:
        ValueError: coverage outside its range.
    """
    confidence_A = np.asarray(confidence, dtype=float)
    correct_A = np.asarray(correct, dtype=float)
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage: got {coverage}, expected a share above 0, at most 1")
    if not len(confidence_A):
        return math.nan
    kept = coverage * len(confidence_A)
    # Levels of confidence, the surest first: `unique` sorts upward, hence the minus.
    _, level_A = np.unique(-confidence_A, return_inverse=True)
    sizes = np.bincount(level_A)
    wrong = np.bincount(level_A, weights=1 - correct_A)
    surer = np.cumsum(sizes) - sizes
    kept_share = np.clip((kept - surer) / sizes, 0, 1)
    return float((kept_share * wrong).sum() / kept)


# ---- truthfulness: right, abstained, hallucinated ------------------------------------------------


def truthfulness(outcomes: Sequence[str]) -> dict[str, float]:
    """Truthfulness = accuracy - hallucination: TruthRL (arXiv 2509.25760), with weights 1, 0, 1.

    Args:
        outcomes: one `types.Outcome` per answer. Neither "right" nor "abstained" is a
            hallucination. "unscored" answers are left out.

    Returns:
        {"accuracy", "abstention", "hallucination", "truthfulness"}: shares of the judged answers;
        NaN if none was judged.
    """
    judged = [outcome for outcome in outcomes if outcome != "unscored"]
    if not judged:
        return dict.fromkeys(("accuracy", "abstention", "hallucination", "truthfulness"), math.nan)
    accuracy = judged.count("right") / len(judged)
    abstention = judged.count("abstained") / len(judged)
    hallucination = 1 - accuracy - abstention
    return {
        "accuracy": accuracy,
        "abstention": abstention,
        "hallucination": hallucination,
        "truthfulness": accuracy - hallucination,
    }


def shares(n: int, right: int, abstained: int | None, agreement: float | None) -> dict[str, float]:
    """The shares of one problem, by the names of `SHARES`.

    Args:
        n: judged samples.
        right: right samples.
        abstained: samples that abstained; None if the task does not let answers abstain.
        agreement: share of the most frequent answer; None if it is unknown.

    Returns:
        Agreement if it is given; truthfulness, hallucination and abstention, if answers may abstain
        and any sample was judged.
    """
    values = {}
    if agreement is not None:
        values["agreement"] = agreement
    if abstained is not None and n:
        hallucination = (n - right - abstained) / n
        values["abstention"] = abstained / n
        values["hallucination"] = hallucination
        values["truthfulness"] = right / n - hallucination
    return values
