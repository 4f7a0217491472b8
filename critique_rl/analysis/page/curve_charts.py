"""Curves over spending as charts: a thick mean and a band per arm, and a thin line per seed.

Every plot is drawn once for each axis, and the page shows one of them: then switching needs no
script.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from critique_rl.analysis.comparison import MetricValues
from critique_rl.analysis.learning_curves import Curve, MeanCurve, Rows, Step, curve, mean_curve
from critique_rl.analysis.page.plots import (
    POINTS,
    SEEDS_DRAWN,
    Band,
    Chart,
    Frame,
    Line,
    Plot,
    polygon_points,
    ticks,
)

AXES = {
    "tokens/generated": "generated tokens",
    "tokens/total": "total tokens",
    "cost/flops": "FLOPs",
    "cost/usd": "US dollars",
    "step": "optimizer steps",
    "seconds": "wall seconds",
}
"""Axes of a curve: logged metric -> its name."""
ArmMeans = Mapping[int, MeanCurve]
"""The mean curves of one metric over one axis, by the arm's index."""
MeansByAxis = dict[str, dict[str, ArmMeans]]
"""Metric -> axis -> mean curves."""


def used_axes(rows: Rows) -> list[str]:
    """The keys of `AXES` along which anything was spent, in that order."""
    spent = set()
    for step in all_steps(rows):
        for axis in AXES:
            amount = step.get(axis) or 0
            if amount > 0:
                spent.add(axis)
    return [axis for axis in AXES if axis in spent]


def all_steps(rows: Rows) -> Iterator[Step]:
    """The logged steps of all runs, one after another."""
    for seeds in rows.values():
        for logged in seeds.values():
            yield from logged


def curve_charts(
    rows: Rows, titles: Mapping[str, str], axes: Sequence[str], base: MetricValues | None = None
) -> list[Chart]:
    """A chart for each metric that has a point.

    Args:
        rows: metrics.jsonl by arm and seed.
        titles: logged metric -> title of its chart.
        axes: keys of `AXES`.
        base: title -> value of the untrained policy, drawn as a line.
    """
    base = base or {}
    base_values = [base.get(title) for title in titles.values()]
    plots = len(titles) * len(axes)
    most = _points_per_line(rows, plots)
    means = _means_by_axis(rows, titles, axes, most)
    frames = _frames(means, base_values)
    charts = []
    for key, by_axis in means.items():
        title = titles[key]
        drawn = {}
        for axis, arm_means in by_axis.items():
            frame = frames[axis]
            lines = _seed_lines(frame, arm_means, rows, key, axis)
            lines += _mean_lines(frame, arm_means, rows)
            drawn[axis] = _plot(frame, arm_means, lines, axis, base.get(title))
        charts.append(Chart(title, drawn))
    return charts


def _means_by_axis(rows: Rows, keys: Iterable[str], axes: Sequence[str], most: int) -> MeansByAxis:
    """Metric -> axis -> mean curves, of those that have a point."""
    means: MeansByAxis = {}
    for key in keys:
        for axis in axes:
            arm_means = _arm_means(rows, key, axis, most)
            if arm_means:
                means.setdefault(key, {})[axis] = arm_means
    return means


def _draws_every_seed(rows: Rows) -> bool:
    runs = sum(len(seeds) for seeds in rows.values())
    return runs <= SEEDS_DRAWN


def _points_per_line(rows: Rows, plots: int) -> int:
    """Points that a line may have for all lines together to have about `POINTS`."""
    every_seed = _draws_every_seed(rows)
    lines = 0
    for seeds in rows.values():
        # A mean and the two edges of its band.
        lines += 3
        if every_seed:
            lines += len(seeds)
    all_lines = max(1, lines * plots)
    return int(np.clip(POINTS // all_lines, 12, 40))


def _arm_means(rows: Rows, key: str, axis: str, most: int) -> ArmMeans:
    """The mean curve of every arm that has one, by the arm's index."""
    means = {}
    for arm, seeds in enumerate(rows.values()):
        curves = []
        for logged in seeds.values():
            points = curve(logged, key, axis)
            if len(points[0]):
                curves.append(points)
        mean = mean_curve(curves, most)
        if mean:
            means[arm] = mean
    return means


def _frames(means: MeansByAxis, base: Sequence[float | None]) -> dict[str, Frame]:
    """A frame for each axis that has a curve."""
    drawn = []
    ends: dict[str, float] = {}
    for by_axis in means.values():
        for axis, arm_means in by_axis.items():
            for mean in arm_means.values():
                drawn.append(mean)
                last = mean.x[-1]
                ends[axis] = max(last, ends.get(axis, last))
    # One y axis for all metrics, so that they can be read against each other.
    y = _y_ticks(drawn, base)
    frames = {}
    for axis, end in ends.items():
        frames[axis] = Frame(ticks(0, end), y)
    return frames


def _y_ticks(means: Sequence[MeanCurve], base: Sequence[float | None]) -> list[float]:
    """Ticks with room for means, bands and the base's values."""
    inner = [value for value in base if value is not None]
    outer = []
    for mean in means:
        inner += [mean.mean.min(), mean.mean.max()]
        # The band of a single seed is NaN.
        if mean.seeds > 1:
            outer += [mean.low.min(), mean.high.max()]
    low = min(inner, default=0.0)
    # At least 0.05, so that a curve of zeros has an axis with a length.
    high = max([0.05, *inner])
    lowest = min([low, *outer])
    highest = max([high, *outer])
    if low >= 0 and high <= 1:
        # All means are shares, so the axis ends at 0 and 1; bands do not know that they are of
        # shares.
        lowest = 0
        highest = min(1.0, highest)
    return ticks(lowest, highest)


def _plot(
    frame: Frame, means: ArmMeans, lines: Sequence[Line], axis: str, base: float | None
) -> Plot:
    bands = []
    for arm, mean in means.items():
        if mean.seeds > 1:
            polygon = band_points(frame, mean)
            bands.append(Band(arm, polygon))
    base_line = ""
    if base is not None:
        ends = (frame.x[0], frame.x[-1])
        base_line = frame.points(ends, (base, base))
    return Plot(
        x_name=AXES[axis],
        lines=lines,
        bands=bands,
        x_ticks=frame.x_labels(),
        y_ticks=frame.y_labels(),
        zero=frame.zero,
        base=base_line,
    )


def _mean_lines(frame: Frame, means: ArmMeans, rows: Rows) -> list[Line]:
    """A thick line per arm; drawn after the seeds', and so above them."""
    names = list(rows)
    lines = []
    for arm, mean in means.items():
        over = "one seed"
        if mean.seeds > 1:
            over = f"mean of {mean.seeds} seeds"
        title = f"{names[arm]}, {over}"
        points = frame.points(mean.x, mean.mean)
        lines.append(Line(arm, points, title, "mean"))
    return lines


def _seed_lines(frame: Frame, means: ArmMeans, rows: Rows, key: str, axis: str) -> list[Line]:
    """A thin line per seed, of the arms that have more than one; none where runs are too many."""
    names = list(rows)
    lines: list[Line] = []
    if not _draws_every_seed(rows):
        return lines
    for arm in means:
        seeds = rows[names[arm]]
        # A single seed is its own mean.
        if len(seeds) == 1:
            continue
        for seed, logged in seeds.items():
            points = curve(logged, key, axis)
            if len(points[0]):
                # The mean of one curve is that curve, thinned.
                thin = mean_curve([points])
                assert thin is not None
                drawn = frame.points(thin.x, thin.mean)
                title = f"{names[arm]}, seed {seed}"
                lines.append(Line(arm, drawn, title, "seed"))
    return lines


def band_points(frame: Frame, mean: MeanCurve) -> str:
    """The polygon around a mean's interval.

    Args:
        frame: the map to coordinates.
        mean: of several seeds; with one seed its ends are NaN.

    Returns:
        The polygon, as an SVG's `points` has it.
    """
    x = list(mean.x)
    high = list(mean.high)
    low = list(mean.low)
    if len(x) == 1:
        # A single point has no width, so it gets a bar around it.
        middle = x[0]
        half = 0.005 * (frame.x[-1] - frame.x[0])
        x = [middle - half, middle + half]
        high *= 2
        low *= 2
    return polygon_points(frame, x, low, high)


def plain_chart(title: str, points: Curve) -> Chart:
    """One curve over optimizer steps, on axes of its own.

    Args:
        title: of the chart and its line.
        points: x and y, each of shape (points,), at least one; 200 are drawn at most.
    """
    x, y = points
    count = min(len(x), 200)
    places = np.linspace(0, len(x) - 1, count).astype(int)
    kept = np.unique(places)
    x_ticks = ticks(0, float(x[-1]))
    highest = max(0.05, float(y.max()))
    y_ticks = ticks(float(y.min()), highest)
    frame = Frame(x_ticks, y_ticks)
    drawn = frame.points(x[kept], y[kept])
    line = Line(0, drawn, title, "mean")
    plot = Plot(
        x_name=AXES["step"],
        lines=[line],
        bands=[],
        x_ticks=frame.x_labels(),
        y_ticks=frame.y_labels(),
        zero=frame.zero,
    )
    return Chart(title, {"step": plot})
