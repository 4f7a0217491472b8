"""Learning curves of runs, from metrics.jsonl: a metric over what was spent until then, mean and
band over seeds, and what it took to reach a target.

What was spent is logged with each generation, the metric at some later step of it, so the last
known spending is carried forward. The curve of a plain TRL run is read from its completions; it was
judged on other problems, so it is drawn and never compared. Left out: smoothing, which hides what a
seed did.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import read_jsonl
from critique_rl.config.run_folder import RunFolder
from critique_rl.metrics import crossed_interval
from critique_rl.student_t import t_quantile

Curve = tuple[np.ndarray, np.ndarray]
"""x (what was spent, ascending) and y of one seed."""
SPENT = "tokens/generated"
STATUSES = ("ok", "cached", "failed", "skipped")
"""What becomes of a critique that was asked for; each is counted under critique/<status>."""


@dataclass(frozen=True)
class MeanCurve:
    """A mean over seeds and its pointwise 95% t interval, all over x. `low` and `high` are NaN for
    a single seed. New seeds are covered, new problems not.
    """

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seeds: int


def steps(run: RunFolder) -> list[dict[str, Any]]:
    """metrics.jsonl with each step once: a resumed run may have logged its last steps twice, and
    the later line is the one that counts.
    """
    rows = read_jsonl(run.metrics)
    return list({row.get("step", -1 - index): row for index, row in enumerate(rows)}.values())


def with_rates(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows with `critique/leak_rate` (of critiques written) and `critique/failure_rate` (of
    those asked for) where any were; a count not logged is 0.
    """
    return [{**row, **_rates(row)} for row in rows]


def _rates(row: Mapping[str, Any]) -> dict[str, float]:
    asked = sum(row.get(f"critique/{status}") or 0 for status in STATUSES)
    written = (row.get("critique/ok") or 0) + (row.get("critique/cached") or 0)
    shares = {
        "critique/failure_rate": ("critique/failed", asked),
        "critique/leak_rate": ("critique/leaked", written),
    }
    return {name: (row.get(count) or 0) / of for name, (count, of) in shares.items() if of}


def curve(rows: Sequence[Mapping[str, Any]], key: str, spent: str = SPENT) -> Curve:
    """The metric `key` over `spent`; rows before the first spending is known, and values that are
    no numbers, are left out.
    """
    points, so_far = [], math.nan
    for row in rows:
        so_far = float(row[spent]) if _finite(row.get(spent)) else so_far
        if _finite(row.get(key)) and not math.isnan(so_far):
            points.append((so_far, float(row[key])))
    x, y = np.array(sorted(points, key=lambda point: point[0])).reshape(-1, 2).T
    return x, y


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def mean_curve(curves: Sequence[Curve], most: int = 40) -> MeanCurve | None:
    """The mean of piecewise linear curves within the range all of them cover; None where there is
    none.

    At every x where one of them has a point, or at `most` evenly spaced ones where that would be
    more.
    """
    if not curves:
        return None
    low, high = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    grid = np.unique(np.concatenate([x for x, _ in curves]))
    grid = grid[(grid >= low) & (grid <= high)]
    if not len(grid):
        return None
    grid = np.linspace(grid[0], grid[-1], most) if len(grid) > most else grid
    values_SX = np.array([np.interp(grid, x, y) for x, y in curves])
    half = _half_width(len(curves)) * values_SX.std(axis=0, ddof=min(1, len(curves) - 1))
    mean = values_SX.mean(axis=0)
    return MeanCurve(grid, mean, mean - half, mean + half, len(curves))


@cache
def _half_width(seeds: int) -> float:
    """Half the 95% t interval of a mean over seeds, in standard deviations; NaN for one seed, which
    says nothing of others.
    """
    return t_quantile(0.975, seeds - 1) / math.sqrt(seeds) if seeds > 1 else math.nan


def completions_curve(folder: Path) -> Curve:
    """(step, mean reward) of a plain TRL run, from the `completions/completions_<step>.parquet`
    that `log_completions` writes into its output folder.

    The reward is the sum of the numeric columns but `step` and `advantage`, as TRL weighs its
    reward functions alike unless told otherwise; rows that no function scored are left out.
    `folder` is the output folder or the one of the files; without a file the curve is empty.
    ConfigError names a file that cannot be read.
    """
    rewards: dict[int, list[float]] = defaultdict(list)
    for file in sorted(
        [*folder.glob("completions_*.parquet"), *folder.glob("completions/completions_*.parquet")]
    ):
        table = _completions(file)
        names = [
            field.name
            for field in table.schema
            if field.name not in ("step", "advantage") and _numeric(field.type)
        ]
        if "step" in table.schema.names and names:
            scores_NF = np.array([table[name].to_numpy().astype(float) for name in names]).T
            scored = ~np.isnan(scores_NF).all(axis=1)
            for step, row in zip(
                table["step"].to_numpy()[scored], np.nansum(scores_NF[scored], axis=1), strict=True
            ):
                rewards[int(step)].append(float(row))
    points = [(float(step), float(np.mean(values))) for step, values in sorted(rewards.items())]
    x, y = np.array(points).reshape(-1, 2).T
    return x, y


def _completions(file: Path) -> pa.Table:
    try:
        return pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(
            f"external: {file} cannot be read ({' '.join(str(error).split())}), expected a table of completions by TRL: delete it"
        ) from error


def _numeric(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def spent_to_target(points: Curve, target: float) -> float | None:
    """What was spent where the curve first reaches `target`, drawn straight between points; None
    where it never does.
    """
    x, y = points
    reached = np.flatnonzero(y >= target)
    if not len(reached):
        return None
    i = int(reached[0])
    if i == 0:
        return float(x[0])
    return float(x[i - 1] + (x[i] - x[i - 1]) * (target - y[i - 1]) / (y[i] - y[i - 1]))


def to_target(
    runs: Mapping[int, RunFolder], metric: str, target: float, spent: str = SPENT
) -> dict[str, Any]:
    """{"per_seed": spending or None, "reached": seeds, "mean", "ci95"}: what was `spent` until the
    validation curve of `metric` first reached `target`.

    Mean and t interval over seeds are of the logarithm, because ratios are what such figures are
    quoted for. A seed that never got there has no number, and then neither has the mean: leaving it
    out would flatter the arm that fails.
    """
    per_seed = {
        str(seed): spent_to_target(curve(steps(run), f"eval/{metric}", spent), target)
        for seed, run in runs.items()
    }
    found = [cost for cost in per_seed.values() if cost is not None]
    mean, ci95 = None, None
    if found and len(found) == len(per_seed):
        estimate = crossed_interval(np.log(found)[:, None])
        mean = math.exp(estimate.mean)
        ci95 = (
            [math.exp(estimate.low), math.exp(estimate.high)]
            if math.isfinite(estimate.low)
            else None
        )
    return {"per_seed": per_seed, "reached": len(found), "mean": mean, "ci95": ci95}
