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
    every_seed = sum(len(seeds) for seeds in rows.values()) <= SEEDS_DRAWN
    most = _points_per_line(rows, len(titles) * len(axes), every_seed)
    means: dict[str, dict[str, ArmMeans]] = {}
    for key in titles:
        for axis in axes:
            arm_means = _arm_means(rows, key, axis, most)
            if arm_means:
                means.setdefault(key, {})[axis] = arm_means
    frames = _frames(means, [base.get(title) for title in titles.values()])
    charts = []
    for key, by_axis in means.items():
        title = titles[key]
        plots = {}
        for axis, arm_means in by_axis.items():
            seed_lines = _seed_lines(frames[axis], arm_means, rows, key, axis) if every_seed else []
            plots[axis] = _plot(frames[axis], arm_means, rows, seed_lines, axis, base.get(title))
        charts.append(Chart(title, plots))
    return charts


def _points_per_line(rows: Rows, plots: int, every_seed: bool) -> int:
    """Points that a line may have for all lines together to have about `POINTS`."""
    lines = 0
    for seeds in rows.values():
        # A mean and the two edges of its band.
        lines += 3
        if every_seed:
            lines += len(seeds)
    return int(np.clip(POINTS // max(1, lines * plots), 12, 40))


def _arm_means(rows: Rows, key: str, axis: str, most: int) -> ArmMeans:
    """The mean curve of every arm that has one, by the arm's index."""
    means = {}
    for arm, seeds in enumerate(rows.values()):
        curves = [curve(logged, key, axis) for logged in seeds.values()]
        mean = mean_curve([points for points in curves if len(points[0])], most)
        if mean:
            means[arm] = mean
    return means


def _frames(
    means: Mapping[str, Mapping[str, ArmMeans]], base: Sequence[float | None]
) -> dict[str, Frame]:
    """A frame for each axis that has a curve."""
    # One y axis for all metrics, so that they can be read against each other.
    drawn = [mean for by_axis in means.values() for mean in _all_means(by_axis.values())]
    y = _y_ticks(drawn, [value for value in base if value is not None])
    ends: dict[str, float] = {}
    for by_axis in means.values():
        for axis, arm_means in by_axis.items():
            last = max(mean.x[-1] for mean in arm_means.values())
            ends[axis] = max(last, ends.get(axis, last))
    return {axis: Frame(ticks(0, end), y) for axis, end in ends.items()}


def _all_means(plots: Iterable[ArmMeans]) -> list[MeanCurve]:
    return [mean for arm_means in plots for mean in arm_means.values()]


def _y_ticks(means: Sequence[MeanCurve], base: Sequence[float]) -> list[float]:
    """Ticks with room for means, bands and the base's values."""
    inner = list(base)
    outer = []
    for mean in means:
        inner += [mean.mean.min(), mean.mean.max()]
        # The band of a single seed is NaN.
        if mean.seeds > 1:
            outer += [mean.low.min(), mean.high.max()]
    low = min(inner, default=0.0)
    # At least 0.05, so that a curve of zeros has an axis with a length.
    high = max([0.05, *inner])
    if low >= 0 and high <= 1:
        # All means are shares, so the axis ends at 0 and 1; bands do not know that they are of
        # shares.
        return ticks(0, min(1.0, max([high, *outer])))
    return ticks(min([low, *outer]), max([high, *outer]))


def _plot(
    frame: Frame,
    means: ArmMeans,
    rows: Rows,
    seed_lines: Sequence[Line],
    axis: str,
    base: float | None,
) -> Plot:
    names = list(rows)
    bands = []
    lines = list(seed_lines)
    for arm, mean in means.items():
        if mean.seeds > 1:
            bands.append(Band(arm, band_points(frame, mean)))
        over = f"mean of {mean.seeds} seeds" if mean.seeds > 1 else "one seed"
        # Means are drawn last, above the seeds.
        lines.append(Line(arm, frame.points(mean.x, mean.mean), f"{names[arm]}, {over}", "mean"))
    base_line = ""
    if base is not None:
        base_line = frame.points((frame.x[0], frame.x[-1]), (base, base))
    return Plot(
        x_name=AXES[axis],
        lines=lines,
        bands=bands,
        x_ticks=frame.x_labels(),
        y_ticks=frame.y_labels(),
        zero=frame.at(frame.x[0], 0)[1],
        base=base_line,
    )


def _seed_lines(frame: Frame, means: ArmMeans, rows: Rows, key: str, axis: str) -> list[Line]:
    """A thin line per seed, of the arms that have more than one."""
    names = list(rows)
    lines = []
    for arm in means:
        seeds = rows[names[arm]]
        # A single seed is its own mean.
        if len(seeds) == 1:
            continue
        for seed, logged in seeds.items():
            points = curve(logged, key, axis)
            # The mean of one curve is that curve, thinned.
            thin = mean_curve([points]) if len(points[0]) else None
            if thin:
                title = f"{names[arm]}, seed {seed}"
                lines.append(Line(arm, frame.points(thin.x, thin.mean), title, "seed"))
    return lines


def band_points(frame: Frame, mean: MeanCurve) -> str:
    """The polygon along the upper ends and back along the lower ones, for an SVG's `points`."""
    x = list(mean.x)
    high = list(mean.high)
    low = list(mean.low)
    if len(x) == 1:
        # A single point has no width, so it gets a bar around it.
        half = 0.005 * (frame.x[-1] - frame.x[0])
        x = [x[0] - half, x[0] + half]
        high *= 2
        low *= 2
    return frame.points([*x, *x[::-1]], [*high, *low[::-1]])


def plain_chart(title: str, points: Curve) -> Chart:
    """One curve over optimizer steps, on axes of its own.

    Args:
        title: of the chart and its line.
        points: x and y, each of shape (points,), at least one; 200 are drawn at most.
    """
    x, y = points
    kept = np.linspace(0, len(x) - 1, min(len(x), 200)).astype(int)
    kept = np.unique(kept)
    frame = Frame(ticks(0, float(x[-1])), ticks(float(y.min()), max(0.05, float(y.max()))))
    line = Line(0, frame.points(x[kept], y[kept]), title, "mean")
    plot = Plot(
        x_name=AXES["step"],
        lines=[line],
        bands=[],
        x_ticks=frame.x_labels(),
        y_ticks=frame.y_labels(),
        zero=frame.at(0, 0)[1],
    )
    return Chart(title, {"step": plot})
