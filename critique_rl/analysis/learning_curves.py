"""Learning curves of runs, from metrics.jsonl: a metric over spending, mean and band over seeds,
and the spending that it took to reach a target.

The curve of a plain TRL run is read from its completions. It was judged on other problems, so it is
drawn and never compared. Left out: smoothing, which hides what a seed did.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from critique_rl.analysis.comparison import SpentToTarget
from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import REWRITE, DamagedFile, read_jsonl, without_nan
from critique_rl.config.names import shown
from critique_rl.config.run_folder import RunFolder
from critique_rl.intervals import crossed_interval, t_quantile

Curve = tuple[np.ndarray, np.ndarray]
"""x (spending, ascending) and y of one seed, both of shape (points,)."""
Point = tuple[float, float]
"""(x, y) of a curve."""
Step = Mapping[str, Any]
"""One line of metrics.jsonl: metric -> value."""
Rows = Mapping[str, Mapping[int, Sequence[Step]]]
"""metrics.jsonl by arm and seed."""
SPENT = "tokens/generated"
STATUSES = ("ok", "cached", "failed", "skipped")
"""Statuses of a critique that was asked for; each is counted under critique/<status>."""
LOGGED_TYPES = (int, float, type(None))
"""Types of a logged value."""
SeedRuns = Mapping[int, RunFolder]
"""One arm's run folders by seed."""


@dataclass(frozen=True)
class MeanCurve:
    """A mean over seeds and its pointwise 95% t interval, arrays of shape (points,) all over x.

    The interval covers new seeds, and no new problems.
    """

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    """NaN for a single seed, which says nothing of others."""
    high: np.ndarray
    """NaN for a single seed."""
    seeds: int


def steps(run: RunFolder) -> list[dict[str, Any]]:
    """metrics.jsonl with each step once; NaN and infinity are None.

    Raises:
        DamagedFile: a line is no object of numbers.
    """
    by_step: dict[int, dict[str, Any]] = {}
    for index, row in enumerate(read_jsonl(run.metrics)):
        # A resumed run may have logged its last steps twice. The later line counts: the first was
        # of a step that the checkpoint does not hold. Lines without a step stay apart.
        if not all(isinstance(value, LOGGED_TYPES) for value in row.values()):
            raise DamagedFile(
                run.metrics, f"row {index + 1} holds something else than numbers", REWRITE
            )
        step = row.get("step")
        by_step[step if isinstance(step, int) else -1 - index] = without_nan(row)
    return list(by_step.values())


def with_rates(rows: Sequence[Step]) -> list[Step]:
    """The rows with two more metrics, from the counts of critiques that they hold.

    Returns:
        `critique/leak_rate` is of the critiques written. `critique/failure_rate` is the share of
        those asked for that failed or were skipped, for example because a circuit was open. A
        rate is absent where its denominator is 0.
    """
    return [dict(row) | _rates(row) for row in rows]


def _rates(row: Step) -> dict[str, float]:
    counts = {}
    for name in (*STATUSES, "leaked"):
        # A count that was not logged is 0: a run without a critic logs none of them.
        counts[name] = _finite_or_none(row.get(f"critique/{name}")) or 0
    leaked = counts.pop("leaked")
    asked = sum(counts.values())
    written = counts["ok"] + counts["cached"]
    rates = {}
    if asked:
        rates["critique/failure_rate"] = (counts["failed"] + counts["skipped"]) / asked
    if written:
        rates["critique/leak_rate"] = leaked / written
    return rates


def curve(rows: Sequence[Step], key: str, spent: str = SPENT) -> Curve:
    """A metric over spending.

    Args:
        rows: lines of metrics.jsonl in the order of the steps.
        key: the metric.
        spent: the metric that says what was spent so far.

    Returns:
        x and y, each of shape (points,). Left out are values that are no finite numbers, and rows
        before the first spending is known.
    """
    points = []
    spent_so_far = None
    for row in rows:
        # Spending is logged with each generation, an evaluation at some later step of it, so the
        # last known spending is carried forward.
        amount = _finite_or_none(row.get(spent))
        if amount is not None:
            spent_so_far = amount
        value = _finite_or_none(row.get(key))
        if value is not None and spent_so_far is not None:
            points.append((spent_so_far, value))
    # A stable sort by spending alone: values at the same spending stay in the order of the steps.
    points.sort(key=lambda point: point[0])
    return _as_curve(points)


def _as_curve(points: Sequence[Point]) -> Curve:
    """x and y of the points, each of shape (points,)."""
    points_N2 = np.array(points).reshape(-1, 2)
    return points_N2[:, 0], points_N2[:, 1]


def _finite_or_none(value: Any) -> float | None:
    if not isinstance(value, int | float):
        return None
    if math.isfinite(value):
        return float(value)
    return None


def mean_curve(curves: Sequence[Curve], most: int = 40) -> MeanCurve | None:
    """The mean of piecewise linear curves within the range that all of them cover.

    Args:
        curves: one per seed, each with at least one point.
        most: points at most. Up to that many, there is one wherever a curve has one; else they are
            evenly spaced.

    Returns:
        None where no x is covered by all curves.
    """
    if not curves:
        return None
    seeds = len(curves)
    xs = [x for x, _ in curves]
    low = max(x[0] for x in xs)
    high = min(x[-1] for x in xs)
    grid = np.unique(np.concatenate(xs))
    covered = (grid >= low) & (grid <= high)
    grid = grid[covered]
    if not len(grid):
        return None
    if len(grid) > most:
        grid = np.linspace(grid[0], grid[-1], most)
    interpolated = [np.interp(grid, x, y) for x, y in curves]
    values_SX = np.array(interpolated)
    # One seed has no spread: ddof 0 keeps numpy from dividing by 0, and the half width is NaN.
    ddof = min(1, seeds - 1)
    half_X = _half_width(seeds) * values_SX.std(axis=0, ddof=ddof)
    mean_X = values_SX.mean(axis=0)
    return MeanCurve(x=grid, mean=mean_X, low=mean_X - half_X, high=mean_X + half_X, seeds=seeds)


def _half_width(seeds: int) -> float:
    """Half the 95% t interval of a mean over seeds, in standard deviations; NaN for one seed."""
    if seeds == 1:
        return math.nan
    quantile = t_quantile(0.975, seeds - 1)
    return quantile / math.sqrt(seeds)


def completions_curve(folder: Path) -> Curve:
    """(step, mean reward) of a plain TRL run.

    Args:
        folder: the run's output folder, in which `log_completions` writes
            `completions/completions_<step>.parquet`; or the folder of these files.

    Returns:
        x and y, each of shape (steps,); empty without a file. Rows that no reward function scored
        are left out.

    Raises:
        ConfigError: a file cannot be read; the message names it.
    """
    rewards: dict[int, list[float]] = defaultdict(list)
    for file in _completions_files(folder):
        table = _read_completions(file)
        for step, reward in _rewards(table):
            rewards[int(step)].append(reward)
    points = []
    for step in sorted(rewards):
        mean = np.mean(rewards[step])
        points.append((float(step), float(mean)))
    return _as_curve(points)


def _completions_files(folder: Path) -> list[Path]:
    """TRL's files of completions in the output folder of a run."""
    files = [
        *folder.glob("completions_*.parquet"),
        *folder.glob("completions/completions_*.parquet"),
    ]
    return sorted(files)


def external_warnings(folders: Mapping[str, str]) -> list[str]:
    """A line for each external run of which nothing can be drawn.

    Args:
        folders: name -> output folder of a plain TRL run.
    """
    warnings = []
    for name, place in folders.items():
        words = ""
        # Path.exists raises for a name that is too long.
        if not os.path.lexists(place):
            words = "does not exist"
        elif not os.path.isdir(place):
            words = "is no folder"
        elif not _completions_files(Path(place)):
            words = "has no completions_*.parquet, which TRL writes with log_completions"
        if words:
            warnings.append(
                f"external: {name!r} is not drawn in the report, for {shown(place)} {words}"
            )
    return warnings


def _rewards(table: pa.Table) -> list[Point]:
    """(step, reward) of every completion that was scored."""
    # TRL writes a column per reward function, under the function's name. All other numeric columns
    # are known, so what is left are rewards.
    names = [
        column.name
        for column in table.schema
        if column.name not in ("step", "advantage") and _is_numeric(column.type)
    ]
    if "step" not in table.schema.names or not names:
        return []
    columns = []
    for name in names:
        column = table[name].to_numpy()
        columns.append(column.astype(float))
    scores_NF = np.array(columns).T
    scored_N = ~np.isnan(scores_NF).all(axis=1)
    # TRL weighs its reward functions alike unless told otherwise, so the reward is their sum.
    rewards_N = np.nansum(scores_NF[scored_N], axis=1)
    steps_N = table["step"].to_numpy()
    scored_steps_N = steps_N[scored_N]
    return list(zip(scored_steps_N.tolist(), rewards_N.tolist(), strict=True))


def _read_completions(file: Path) -> pa.Table:
    """One of TRL's files.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return pq.read_table(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        # Arrow's messages have several lines.
        words = " ".join(str(error).split())
        raise ConfigError(
            f"external: {file} cannot be read ({words}), expected a table of completions by TRL: "
            f"delete it"
        ) from error


def _is_numeric(kind: pa.DataType) -> bool:
    is_number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
    return bool(is_number)


def spent_to_target(points: Curve, target: float) -> float | None:
    """The spending at which a curve first reaches the target.

    Args:
        points: x and y, each of shape (points,); y is taken as straight between two points.
        target: a value of y.

    Returns:
        A value of x; None where the curve never reaches the target.
    """
    x, y = points
    reached = np.flatnonzero(y >= target)
    if not len(reached):
        return None
    i = int(reached[0])
    x_after = x[i]
    if i == 0:
        return float(x_after)
    x_before = x[i - 1]
    y_before = y[i - 1]
    width = x_after - x_before
    height = y[i] - y_before
    crossing = x_before + width * (target - y_before) / height
    return float(crossing)


def to_target(runs: SeedRuns, metric: str, target: float, spent: str = SPENT) -> SpentToTarget:
    """An arm's spending until the validation curve of a metric first reached the target.

    Args:
        runs: the arm's runs by seed.
        metric: as evaluations name it; its curve is logged under eval/<metric>.
        target: a value of the metric.
        spent: the logged metric that says what was spent so far.

    Returns:
        Geometric mean and t interval over seeds; None where a seed never got there.
    """
    per_seed = {}
    for seed, run in runs.items():
        points = curve(steps(run), f"eval/{metric}", spent)
        per_seed[str(seed)] = spent_to_target(points, target)
    spendings = [spending for spending in per_seed.values() if spending is not None]
    reached = len(spendings)
    # A seed that never got there has no number, and then the mean has none: leaving the seed out
    # would flatter the arm that fails.
    if reached == 0 or reached < len(per_seed):
        return SpentToTarget(per_seed, reached, None, None)
    # Mean and interval are of the logarithm, because such figures are quoted as ratios.
    logs_S1 = np.log(spendings)[:, None]
    interval = crossed_interval(logs_S1)
    ci95 = None
    if math.isfinite(interval.low):
        low = math.exp(interval.low)
        high = math.exp(interval.high)
        ci95 = (low, high)
    mean = math.exp(interval.mean)
    return SpentToTarget(per_seed, reached, mean, ci95)
