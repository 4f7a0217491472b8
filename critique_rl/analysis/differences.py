"""Paired differences between arms: one arm minus another on the same problems and seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from critique_rl.analysis.comparison import Difference, Ends, LeftOut
from critique_rl.analysis.evaluations import POOLED, ArmRuns, Evaluation, Runs
from critique_rl.analysis.metric_intervals import Contrast, arm_contrast
from critique_rl.analysis.power import smallest_of
from critique_rl.intervals import Interval, joint_level, sign_flip_p
from critique_rl.metrics import EVALUATION_METRICS


def differences_from(
    control: str, arms: ArmRuns, metrics: Sequence[str]
) -> tuple[list[Difference], list[LeftOut]]:
    """Paired differences of every arm from the control on every metric.

    Returns:
        The differences, and the pairs that could not be made.
    """
    differences = []
    unpaired = []
    for arm, runs in arms.items():
        if arm == control or not runs:
            continue
        if not _shared_seeds(runs, arms[control]):
            reason = f"no seed that {control} has too: train both on the same seeds"
            unpaired.append(LeftOut(arm, None, reason))
            continue
        for metric in metrics:
            pair = _pair(arm, control, arms, metric)
            if pair is None:
                reason = (
                    f"{metric}: no problem has enough judged samples in both arms and every seed"
                )
                unpaired.append(LeftOut(arm, None, reason))
            else:
                difference, _ = pair
                differences.append(difference)
    return differences, unpaired


def all_pairs(arms: ArmRuns, primary: str) -> list[Difference]:
    """Every arm minus every arm before it, on the primary metric.

    Args:
        arms: in the order of the pipeline.
        primary: the metric.

    Returns:
        The pairs that share a seed and a problem.
    """
    # Whether an arm is better than the control is one question. Whether a cheaper arm does as well
    # is another, and it needs these pairs.
    evaluated = [arm for arm, runs in arms.items() if runs]
    pairs = []
    for i, arm in enumerate(evaluated):
        for earlier in evaluated[:i]:
            pair = _pair(arm, earlier, arms, primary)
            if pair is not None:
                pairs.append(pair)
    if len(pairs) < 2:
        return [difference for difference, _ in pairs]
    level = _level_of_all([contrast.values_SP for _, contrast in pairs])
    differences = []
    for difference, _ in pairs:
        wider = _contrast(difference.arm, difference.control, arms, primary, level)
        assert wider is not None, "the pair was made of one"
        _, together = mean_and_ends(wider.interval)
        differences.append(replace(difference, together=together))
    return differences


def _level_of_all(values: Sequence[np.ndarray]) -> float:
    """The level at which intervals of several (S, P) matrices hold at once.

    Whoever picks one of the pairs saw all.
    """
    shapes = {matrix.shape for matrix in values}
    if len(shapes) == 1:
        return joint_level(np.stack(values))
    # Pairs on other problems or seeds: Bonferroni's level needs no correlations.
    return 1 - 0.05 / len(values)


def _contrast(
    arm: str, control: str, arms: ArmRuns, metric: str, level: float = 0.95
) -> Contrast | None:
    """One arm minus another over the seeds that both have; None without a shared problem."""
    seeds = _shared_seeds(arms[arm], arms[control])
    if not seeds:
        return None
    evaluations = []
    for name in (arm, control):
        evaluations.append([arms[name][seed] for seed in seeds])
    # Both arms at once, so that only problems stay which both have.
    return arm_contrast(evaluations, (1, -1), metric, level)


def _shared_seeds(runs: Runs, others: Runs) -> list[int]:
    return sorted(runs.keys() & others.keys())


def _pair(arm: str, control: str, arms: ArmRuns, metric: str) -> tuple[Difference, Contrast] | None:
    """One arm minus another on one metric, over the seeds that both have.

    Returns:
        None where they share no seed, or no problem with a value.
    """
    contrast = _contrast(arm, control, arms, metric)
    if contrast is None:
        return None
    seeds = _shared_seeds(arms[arm], arms[control])
    mean, ci95 = mean_and_ends(contrast.interval)
    per_seed = seed_means(seeds, contrast.values_SP)
    p = sign_flip_p(list(per_seed.values()))
    wanted = None
    if ci95 is not None:
        low, high = ci95
        if low <= 0 <= high:
            wanted = contrast.seeds_to_decide(abs(mean))
    difference = Difference(
        arm=arm,
        control=control,
        metric=metric,
        difference=mean,
        ci95=ci95,
        p=p,
        per_seed=per_seed,
        seeds=tuple(seeds),
        problems=contrast.values_SP.shape[1],
        interval_covers=_coverage(metric, arms[arm][seeds[0]], len(seeds)),
        smallest=_smallest(metric, contrast.values_SP.shape, arms[arm][seeds[0]]),
        seeds_to_decide=wanted,
    )
    return difference, contrast


def _smallest(metric: str, shape: tuple[int, ...], evaluation: Evaluation) -> float | None:
    """`power.smallest_of` for a matrix of (seeds, problems); None where the spread is unknown."""
    seeds, problems = shape
    if evaluation.protocol.get(POOLED):
        return None
    # Evaluations are compared only where they took as many samples (`evaluations.PROTOCOL`).
    samples = evaluation.protocol["samples"]
    return smallest_of(metric, problems, samples, seeds)


def _coverage(metric: str, evaluation: Evaluation, seeds: int) -> str:
    if metric in EVALUATION_METRICS or evaluation.protocol.get(POOLED):
        # A metric of a complete evaluation, or of pooled answers, has no value per problem.
        return "seeds"
    if seeds > 1:
        return "problems and seeds"
    return "problems"


def mean_and_ends(interval: Interval) -> tuple[float, Ends | None]:
    """The mean, and the ends; None where one value says nothing of the spread."""
    if not math.isfinite(interval.low):
        return interval.mean, None
    return interval.mean, (interval.low, interval.high)


def seed_means(seeds: Iterable[int], values_SP: np.ndarray) -> dict[str, float]:
    """Seed, as JSON spells it -> mean over problems.

    Args:
        seeds: one per row of the values.
        values_SP: (seeds, problems).
    """
    means = {}
    for seed, row_P in zip(seeds, values_SP, strict=True):
        means[str(seed)] = float(row_P.mean())
    return means
