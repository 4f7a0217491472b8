"""The interval of a metric: of an arm, or of a contrast of arms.

Shares of a problem's answers, pass@k among them, have the intervals of `intervals.shares`. Over
several families these are combined, because families count alike and problems are drawn within
them: with F families

    below = sqrt(sum over families of below_f^2) / F,

and the crossed t interval of the stratified values (`problem_matrix.stratified`) where that reaches
further, because a seed's luck is shared by all families. Metrics of a complete evaluation have no
value per problem, and a t interval over seeds; so have answers that are pooled per run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from critique_rl.analysis.evaluations import (
    ALL_FAMILIES,
    POOLED,
    Evaluation,
    parse_metric,
    tries_behind,
)
from critique_rl.analysis.problem_matrix import stratified, values_and_families
from critique_rl.intervals import (
    Interval,
    SeedSplit,
    crossed_interval,
    seeds_to_decide,
    share_contrast_interval,
    share_interval,
    split_seeds,
)
from critique_rl.intervals.seeds import has_collapsed, has_taken_off
from critique_rl.metrics import EVALUATION_METRICS

LEAST: Mapping[str, float] = {"truthfulness": -1.0}
"""Shares whose least value is not 0: right answers minus hallucinated ones."""

MOSTLY = 0.8
"""Of an interval's width."""


@dataclass(frozen=True)
class Contrast:
    """A linear combination of arms on one metric, with its interval."""

    interval: Interval
    values_SP: np.ndarray
    """(seeds, problems); stratified over all families."""

    def seeds_to_decide(self, distance: float) -> int | None:
        """The seeds in all that would tell the observed mean from a value so far from it.

        None where more than anybody would train are needed, and where seeds are not what is
        missing.
        """
        if min(self.values_SP.shape) < 2 or distance <= 0:
            return None
        spread = crossed_interval(self.values_SP)
        by_spread = spread.high - spread.low
        width = self.interval.high - self.interval.low
        # The rest of the width is for problems that were not met, and more seeds meet no more.
        if by_spread < MOSTLY * width:
            return None
        return seeds_to_decide(self.values_SP, distance)


def arm_contrast(
    arms: Sequence[Sequence[Evaluation]],
    coefficients: Sequence[float],
    metric: str,
    level: float = 0.95,
) -> Contrast | None:
    """A linear combination of arms.

    Args:
        arms: evaluations of each arm, of the same seeds in the same order.
        coefficients: one per arm. (1,) is an arm on its own.
        metric: as `Evaluation.values` takes it.
        level: coverage, 0 to 1.

    Returns:
        None where no problem has a value in all evaluations.
    """
    evaluations: list[Evaluation] = []
    for of_arm in arms:
        evaluations += of_arm
    values_EP, families = values_and_families(evaluations, metric)
    if not values_EP.size:
        return None
    seeds = len(arms[0])
    weights_A = np.asarray(coefficients, dtype=float)

    def combined(of_evaluations: np.ndarray) -> np.ndarray:
        """(A S, P) -> (S, P)."""
        values_ASP = of_evaluations.reshape(len(arms), seeds, -1)
        contrast_SP: np.ndarray = np.tensordot(weights_A, values_ASP, axes=1)
        return contrast_SP

    if metric in EVALUATION_METRICS:
        values_SP = combined(values_EP)
        return Contrast(crossed_interval(values_SP, level), values_SP)
    _, _, family = parse_metric(metric)
    # Evaluations are compared only where they took as many samples (`evaluations.PROTOCOL`).
    samples = evaluations[0].protocol.get("samples", 1)
    tries = tries_behind(metric, samples)
    least = least_value(metric)
    lowest = _extreme(weights_A, least, 1.0, min)
    highest = _extreme(weights_A, least, 1.0, max)
    if evaluations[0].protocol.get(POOLED):
        values_SP = combined(stratified(values_EP, families)).mean(axis=1, keepdims=True)
        return Contrast(_within(crossed_interval(values_SP, level), lowest, highest), values_SP)
    if family != ALL_FAMILIES:
        values_ASP = values_EP.reshape(len(arms), seeds, -1)
        interval = _of_family(weights_A, values_ASP, least, tries, level)
        return Contrast(interval, combined(values_EP))
    strata_SP = combined(stratified(values_EP, families))
    parts = []
    for one in dict.fromkeys(families):
        members_P = np.array(families) == one
        values_ASP = values_EP[:, members_P].reshape(len(arms), seeds, -1)
        parts.append(_of_family(weights_A, values_ASP, least, tries, level))
    pooled = crossed_interval(strata_SP, level)
    wider = _over_families(parts, pooled)
    return Contrast(_within(wider, lowest, highest), strata_SP)


def _within(interval: Interval, lowest: float, highest: float) -> Interval:
    """The interval without the part that no share can reach; NaN ends stay."""
    low = max(interval.low, lowest)
    high = min(interval.high, highest)
    if math.isnan(interval.low):
        return interval
    return Interval(interval.mean, low, high)


def least_value(metric: str) -> float:
    """The least value of a share or of a metric of whole evaluations; all are at most 1."""
    if metric in EVALUATION_METRICS:
        return LEAST.get(metric, 0.0)
    name, _, _ = parse_metric(metric)
    return LEAST.get(name, 0.0)


def _extreme(
    weights_A: np.ndarray, least: float, most: float, choose: Callable[[float, float], float]
) -> float:
    """The lowest or the highest value of a contrast (A,) of arms from `least` to `most`."""
    total = 0.0
    for weight in weights_A.tolist():
        total += choose(weight * least, weight * most)
    return total


def _of_family(
    weights_A: np.ndarray, values_ASP: np.ndarray, least: float, tries: float, level: float
) -> Interval:
    """The interval within one family, of values (A, S, P) from `least` to 1."""
    width = 1 - least
    shares_ASP = (values_ASP - least) / width
    # x = least + width * share, so a contrast of x is one of shares, moved and stretched.
    if len(weights_A) == 1 and weights_A[0] == 1:
        interval = share_interval(shares_ASP[0], tries, level)
    else:
        interval = share_contrast_interval(weights_A.tolist(), shares_ASP, tries, level)
    moved = least * float(weights_A.sum())
    return Interval(
        moved + width * interval.mean, moved + width * interval.low, moved + width * interval.high
    )


def _over_families(parts: Sequence[Interval], pooled: Interval) -> Interval:
    """The interval of the mean over families."""
    number = len(parts)
    if math.isnan(pooled.low):
        return pooled
    below = 0.0
    above = 0.0
    for part in parts:
        # A family of one problem and one seed has no interval of its own.
        if math.isfinite(part.low):
            to_low = part.mean - part.low
            to_high = part.high - part.mean
            below += to_low**2
            above += to_high**2
    low = pooled.mean - math.sqrt(below) / number
    high = pooled.mean + math.sqrt(above) / number
    low = min(low, pooled.low)
    high = max(high, pooled.high)
    return Interval(pooled.mean, low, high)


def split_of(evaluations: Sequence[Evaluation], base: Evaluation, metric: str) -> SeedSplit | None:
    """Which seeds of an arm took off on a metric, against the policy before training.

    Args:
        evaluations: one per seed.
        base: of the policy before training.
        metric: a share of answers over one family or all.

    Returns:
        None for one seed, for a metric of a complete evaluation, and without a shared problem.
    """
    if len(evaluations) < 2 or metric in EVALUATION_METRICS:
        return None
    contrast = arm_contrast([evaluations], (1,), metric)
    before = arm_contrast([[base]], (1,), metric)
    if contrast is None or before is None:
        return None
    levels_S = contrast.values_SP.mean(axis=1)
    start = before.interval.mean
    levels = levels_S.tolist()
    risen = []
    kept = []
    for evaluation, level in zip(evaluations, levels, strict=True):
        if has_taken_off(level, start):
            risen.append(evaluation)
        if not has_collapsed(level, start):
            kept.append(evaluation)
    among = _interval_of(risen, metric)
    of_kept = None
    if len(kept) < len(evaluations):
        of_kept = _interval_of(kept, metric)
    return split_seeds(levels, start, among, of_kept)


def _interval_of(evaluations: Sequence[Evaluation], metric: str) -> Interval | None:
    """Of an arm's seeds; None for no seed, and without a shared problem."""
    if not evaluations:
        return None
    contrast = arm_contrast([evaluations], (1,), metric)
    return contrast.interval if contrast else None
