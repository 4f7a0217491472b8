"""Learning curves of runs, from metrics.jsonl: a metric over what was spent until then, their mean over seeds, and what it took to reach a target.

What was spent is logged with each generation, the metric at some later step of it, so the last known spending is carried forward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from critique_rl.metrics import crossed_interval
from critique_rl.runs import RunFolder, read_jsonl

Curve = tuple[np.ndarray, np.ndarray]
"""x (what was spent, ascending) and y of one seed."""
SPENT = "tokens/generated"


def steps(run: RunFolder) -> list[dict[str, Any]]:
    """metrics.jsonl with each step once: a resumed run may have logged its last steps twice, and the later line is the one that counts."""
    rows = read_jsonl(run.metrics)
    return list({row.get("step", -1 - index): row for index, row in enumerate(rows)}.values())


def curve(rows: Sequence[Mapping[str, Any]], key: str, spent: str = SPENT) -> Curve:
    """The metric `key` over `spent`; rows before the first spending is known, and values that are no numbers, are left out."""
    points, so_far = [], math.nan
    for row in rows:
        so_far = float(row[spent]) if _finite(row.get(spent)) else so_far
        if _finite(row.get(key)) and not math.isnan(so_far):
            points.append((so_far, float(row[key])))
    x, y = np.array(sorted(points, key=lambda point: point[0])).reshape(-1, 2).T
    return x, y


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def mean_curve(curves: Sequence[Curve]) -> Curve | None:
    """The mean of piecewise linear curves at every x where one of them has a point, within the range all of them cover; None where there is none."""
    if not curves:
        return None
    low, high = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    grid = np.unique(np.concatenate([x for x, _ in curves]))
    grid = grid[(grid >= low) & (grid <= high)]
    return (grid, np.mean([np.interp(grid, x, y) for x, y in curves], axis=0)) if len(grid) else None


def spent_to_target(points: Curve, target: float) -> float | None:
    """What was spent where the curve first reaches `target`, drawn straight between points; None where it never does."""
    x, y = points
    reached = np.flatnonzero(y >= target)
    if not len(reached):
        return None
    i = int(reached[0])
    if i == 0:
        return float(x[0])
    return float(x[i - 1] + (x[i] - x[i - 1]) * (target - y[i - 1]) / (y[i] - y[i - 1]))


def to_target(runs: Mapping[int, RunFolder], metric: str, target: float) -> dict[str, Any]:
    """{"per_seed": tokens or None, "reached": seeds, "mean", "ci95"}: generated tokens until the validation curve of `metric` first reaches `target`.

    Mean and t interval over seeds are of the logarithm, because ratios are what such figures are quoted for. A seed that never got there has no number, and
    then neither has the mean: leaving it out would flatter the arm that fails.
    """
    per_seed = {str(seed): spent_to_target(curve(steps(run), f"eval/{metric}"), target) for seed, run in runs.items()}
    found = [tokens for tokens in per_seed.values() if tokens is not None]
    mean, ci95 = None, None
    if found and len(found) == len(per_seed):
        estimate = crossed_interval(np.log(found)[:, None])
        mean = math.exp(estimate.mean)
        ci95 = [math.exp(estimate.low), math.exp(estimate.high)] if math.isfinite(estimate.low) else None
    return {"per_seed": per_seed, "reached": len(found), "mean": mean, "ci95": ci95}
