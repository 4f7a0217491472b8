"""Paired differences between arms: one arm minus another on the same problems and seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from critique_rl.analysis.comparison import Difference, Ends, LeftOut
from critique_rl.analysis.evaluations import Runs
from critique_rl.analysis.problem_matrix import problem_matrix
from critique_rl.intervals import crossed_interval, sign_flip_p
from critique_rl.metrics import EVALUATION_METRICS


def differences_from(
    control: str, arms: Mapping[str, Runs], metrics: Sequence[str]
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
        if not runs.keys() & arms[control].keys():
            reason = f"no seed that {control} has too: train both on the same seeds"
            unpaired.append(LeftOut(arm, None, reason))
            continue
        for metric in metrics:
            difference = _pair(arm, control, arms, metric)
            if difference is None:
                reason = "no problem has enough judged samples in both arms and every seed"
                unpaired.append(LeftOut(arm, None, f"{metric}: {reason}"))
            else:
                differences.append(difference)
    return differences, unpaired


def all_pairs(arms: Mapping[str, Runs], primary: str) -> list[Difference]:
    """Every arm minus every arm before it, on the primary metric."""
    # Whether an arm is better than the control is one question. Whether a cheaper arm does as well
    # is another, and it needs these pairs.
    evaluated = [arm for arm, runs in arms.items() if runs]
    pairs = []
    for i, arm in enumerate(evaluated):
        for earlier in evaluated[:i]:
            pair = _pair(arm, earlier, arms, primary)
            if pair is not None:
                pairs.append(pair)
    return pairs


def _pair(arm: str, control: str, arms: Mapping[str, Runs], metric: str) -> Difference | None:
    """One arm minus another on one metric, over the seeds that both have.

    Returns:
        None where they share no seed, or no problem with a value.
    """
    seeds = sorted(arms[arm].keys() & arms[control].keys())
    if not seeds:
        return None
    minuend = [arms[arm][seed] for seed in seeds]
    subtrahend = [arms[control][seed] for seed in seeds]
    values_EP = problem_matrix([*minuend, *subtrahend], metric)
    if not values_EP.size:
        return None
    differences_SP = values_EP[: len(seeds)] - values_EP[len(seeds) :]
    mean, ci95 = mean_and_interval(differences_SP)
    per_seed = seed_means(seeds, differences_SP)
    return Difference(
        arm=arm,
        control=control,
        metric=metric,
        difference=mean,
        ci95=ci95,
        p=sign_flip_p(list(per_seed.values())),
        per_seed=per_seed,
        seeds=tuple(seeds),
        problems=differences_SP.shape[1],
        interval_covers=_coverage(metric, len(seeds)),
    )


def _coverage(metric: str, seeds: int) -> str:
    if metric in EVALUATION_METRICS:
        # A metric of a complete evaluation has no value per problem.
        return "seeds"
    return "problems and seeds" if seeds > 1 else "problems"


def mean_and_interval(values_SP: np.ndarray) -> tuple[float, Ends | None]:
    """Mean and 95% interval over new seeds and new problems.

    Args:
        values_SP: (seeds, problems).

    Returns:
        The mean, and the interval; None where one value says nothing of the spread.
    """
    interval = crossed_interval(values_SP)
    if not math.isfinite(interval.low):
        return interval.mean, None
    return interval.mean, (interval.low, interval.high)


def seed_means(seeds: Iterable[int], values_SP: np.ndarray) -> dict[str, float]:
    """Seed, as JSON spells it -> mean over problems.

    Args:
        seeds: one per row of the values.
        values_SP: (seeds, problems).
    """
    return {str(seed): float(row.mean()) for seed, row in zip(seeds, values_SP, strict=True)}
