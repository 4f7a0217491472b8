"""Plots as coordinates in an SVG's view box; the markup is `templates/plots.jinja`. Curves over
what was spent, pass@k over k, reliability diagrams.

An arm is an index, which `look` turns into a hue and a dash pattern, so that arms differ in print
and for the colour-blind too. Every plot over spending is drawn once for each axis, and the page
shows one of them: then switching needs no script. Left out: matplotlib (slow to import, its SVG
follows no dark mode).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from critique_rl.analysis.formats import short
from critique_rl.analysis.learning_curves import Curve, MeanCurve, curve, mean_curve

AXES = {
    "tokens/generated": "generated tokens",
    "tokens/total": "total tokens",
    "cost/flops": "FLOPs",
    "cost/usd": "US dollars",
    "step": "optimizer steps",
    "seconds": "wall seconds",
}
"""What a curve can be drawn over: the metric, and its name."""
HUES, DASHES = 8, 4
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 424, 250, 44, 404, 12, 208
"""Of every plot, in units of its view box; the last four bound the drawing."""
POINTS = 60_000
"""Points of all curves together, about 10 bytes each: what keeps a page of many arms under 2 MB."""
SEEDS_DRAWN = 20
"""Runs up to which every seed is drawn beside the mean."""

Rows = Mapping[str, Mapping[int, Sequence[Mapping[str, Any]]]]
"""metrics.jsonl by arm and seed."""


@dataclass(frozen=True)
class Line:
    """One polyline. `arm` is the index that colours it; `kind` is "mean" (thick) or "seed"."""

    arm: int
    points: str
    title: str
    kind: str


@dataclass(frozen=True)
class Plot:
    """Ticks are (position, label), bands (arm, polygon); `zero` is the height of y = 0, `base` the
    points of the untrained policy's line, or "".
    """

    x_name: str
    lines: Sequence[Line]
    bands: Sequence[tuple[int, str]]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    zero: float
    base: str = ""
    dots: Sequence[tuple[float, float, float, str]] = ()
    """(x, y, radius, title) of a reliability diagram's bins."""


@dataclass(frozen=True)
class Chart:
    """One quantity: its plots by axis."""

    title: str
    plots: Mapping[str, Plot]


@dataclass(frozen=True)
class Frame:
    """Ticks of both axes, evenly spaced and ascending, and the map from values to coordinates.
    Values outside are drawn at the edge.
    """

    x: Sequence[float]
    y: Sequence[float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[-1] - self.x[0])
        up = min(1.0, max(0.0, (y - self.y[0]) / (self.y[-1] - self.y[0])))
        return round(LEFT + (RIGHT - LEFT) * across, 1), round(BOTTOM - (BOTTOM - TOP) * up, 1)

    def points(self, x: Sequence[float], y: Sequence[float]) -> str:
        return " ".join("{:g},{:g}".format(*self.at(*point)) for point in zip(x, y, strict=True))

    def x_labels(self) -> list[tuple[float, str]]:
        return [(self.at(tick, 0)[0], label(tick)) for tick in self.x]

    def y_labels(self) -> list[tuple[float, str]]:
        return [(self.at(self.x[0], tick)[1], f"{tick:g}") for tick in self.y]


def look(arm: int) -> tuple[int, int]:
    """(hue, dash pattern) of an arm: 32 that differ, and neighbours differ in both."""
    return arm % HUES, (arm + arm // HUES) % DASHES


def label(number: float) -> str:
    """250000 -> 250k; beyond 10^12, where letters end, 2.5e15."""
    return f"{number:.3g}".replace("e+", "e") if number >= 1e12 else short(number)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from the last at or below min(low, 0) to the first at or above `high`, 4 to 7
    of them: steps of 1, 2, 2.5 or 5 times a power of ten.
    """
    low, span = min(0.0, low), high - min(0.0, low)
    power = 10.0 ** math.floor(math.log10(span / 5)) if span > 0 else 1.0
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m * 5 >= span * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, max(last, first + 1) + 1)]


def used_axes(rows: Rows) -> list[str]:
    """Axes along which anything was spent. The first is the one shown unless another is asked for."""
    spent = {
        key
        for of in rows.values()
        for logged in of.values()
        for row in logged
        for key in AXES
        if (row.get(key) or 0) > 0
    }
    return [key for key in AXES if key in spent]


def charts(
    rows: Rows,
    titles: Mapping[str, str],
    axes: Sequence[str],
    base: Mapping[str, float | None] | None = None,
) -> list[Chart]:
    """A chart for each metric of `titles` that has a point, with one y axis for all of them, so
    that they can be read against each other.
    """
    base, every_seed = base or {}, sum(len(of) for of in rows.values()) <= SEEDS_DRAWN
    lines = sum(3 + len(of) * every_seed for of in rows.values()) * len(titles) * len(axes)
    most = int(np.clip(POINTS // max(1, lines), 12, 40))
    found = {key: {axis: _means(rows, key, axis, most) for axis in axes} for key in titles}
    found = {key: {axis: means for axis, means in of.items() if means} for key, of in found.items()}
    drawn = [mean for of in found.values() for means in of.values() for mean in means.values()]
    y = _y_ticks(
        drawn, [value for name in titles.values() if (value := base.get(name)) is not None]
    )
    frames = {
        axis: Frame(
            ticks(0, max(_last(of[axis].values()) for of in found.values() if axis in of)), y
        )
        for axis in _present(found)
    }
    return [
        Chart(
            titles[key],
            {
                axis: _plot(means, rows, key, axis, frames[axis], base.get(titles[key]), every_seed)
                for axis, means in of.items()
            },
        )
        for key, of in found.items()
        if of
    ]


def _present(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(axis for of in found.values() for axis in of))


def _last(means: Any) -> float:
    return max(mean.x[-1] for mean in means)


def _means(rows: Rows, key: str, axis: str, most: int) -> dict[int, MeanCurve]:
    """The mean curve of every arm, by its index, that has one."""
    of_arms = (
        [found for logged in of.values() if len((found := curve(logged, key, axis))[0])]
        for of in rows.values()
    )
    return {arm: mean for arm, curves in enumerate(of_arms) if (mean := mean_curve(curves, most))}


def _y_ticks(means: Sequence[MeanCurve], others: Sequence[float]) -> list[float]:
    """Room for means and bands; a quantity whose means are all shares gets no axis beyond 0 to 1,
    as bands do not know that.
    """
    inner = [
        *others,
        *(value for mean in means for value in (mean.mean.min(), mean.mean.max())),
    ] or [0.0]
    low, high = min(inner), max(0.05, *inner)
    outer = [
        value for mean in means if mean.seeds > 1 for value in (mean.low.min(), mean.high.max())
    ]
    if low >= 0 and high <= 1:
        return ticks(0, min(1.0, max([high, *outer])))
    return ticks(min([low, *outer]), max([high, *outer]))


def _plot(
    means: Mapping[int, MeanCurve],
    rows: Rows,
    key: str,
    axis: str,
    frame: Frame,
    base: float | None,
    every_seed: bool,
) -> Plot:
    names = list(rows)
    bands = [(arm, band(frame, mean)) for arm, mean in means.items() if mean.seeds > 1]
    lines = (
        [
            line
            for arm in means
            for line in _seed_lines(frame, arm, names[arm], rows[names[arm]], key, axis)
        ]
        if every_seed
        else []
    )
    lines += [
        Line(arm, frame.points(m.x, m.mean), f"{names[arm]}, {_over(m.seeds)}", "mean")
        for arm, m in means.items()
    ]
    line = frame.points((frame.x[0], frame.x[-1]), (base, base)) if base is not None else ""
    return Plot(
        AXES[axis],
        lines,
        bands,
        frame.x_labels(),
        frame.y_labels(),
        frame.at(frame.x[0], 0)[1],
        line,
    )


def _over(seeds: int) -> str:
    return f"mean of {seeds} seeds" if seeds > 1 else "one seed"


def _seed_lines(
    frame: Frame,
    arm: int,
    name: str,
    seeds: Mapping[int, Sequence[Mapping[str, Any]]],
    key: str,
    axis: str,
) -> Iterator[Line]:
    """A thin line a seed; a single seed is its own mean."""
    for seed, logged in seeds.items() if len(seeds) > 1 else ():
        if thin := mean_curve([found] if len((found := curve(logged, key, axis))[0]) else []):
            yield Line(arm, frame.points(thin.x, thin.mean), f"{name}, seed {seed}", "seed")


def band(frame: Frame, mean: MeanCurve) -> str:
    """The polygon along the upper ends and back along the lower ones; a single point gets a bar
    around it.
    """
    thin = 0.005 * (frame.x[-1] - frame.x[0])
    x, high, low = (
        (mean.x, mean.high, mean.low)
        if len(mean.x) > 1
        else ([mean.x[0] - thin, mean.x[0] + thin], [*mean.high] * 2, [*mean.low] * 2)
    )
    return frame.points([*x, *x[::-1]], [*high, *low[::-1]])


def plain_chart(title: str, points: Curve) -> Chart:
    """One curve over optimizer steps, on axes of its own."""
    x, y = points
    keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), 200)).astype(int))
    frame = Frame(ticks(0, float(x[-1])), ticks(float(y.min()), max(0.05, float(y.max()))))
    line = Line(0, frame.points(x[keep], y[keep]), title, "mean")
    return Chart(
        title,
        {
            "step": Plot(
                AXES["step"], [line], [], frame.x_labels(), frame.y_labels(), frame.at(0, 0)[1]
            )
        },
    )


def pass_charts(comparison: Mapping[str, Any]) -> list[Chart]:
    """pass@k over k, a chart a family: the arms' means with their intervals, and the base's.
    Families with a single k have no curve.
    """
    arms, base = comparison["arms"], comparison["base"] or {}
    names = dict.fromkeys(
        name for summary in arms.values() for name in summary["metrics"] if name.startswith("pass@")
    )
    families = dict.fromkeys(name.partition("/")[2] for name in names)
    found = []
    for family in families:
        ks = sorted(
            int(name[5:].partition("/")[0]) for name in names if name.partition("/")[2] == family
        )
        if len(ks) > 1:
            found.append(_pass_chart(family, ks, arms, base))
    return found


def _pass_chart(
    family: str, ks: Sequence[int], arms: Mapping[str, Any], base: Mapping[str, float | None]
) -> Chart:
    """k on a logarithmic axis, as pass@k is about straight over it."""
    frame = Frame([math.log(ks[0]), math.log(ks[-1])], ticks(0, 1))
    lines, bands = [], []
    for arm, (name, summary) in enumerate(arms.items()):
        known = [
            (math.log(k), found)
            for k in ks
            if (found := summary["metrics"].get(f"pass@{k}/{family}"))
        ]
        lines += [
            Line(
                arm,
                frame.points([x for x, _ in known], [m["mean"] for _, m in known]),
                f"{name}: {_spoken(ks, family, summary)}",
                "mean",
            )
        ]
        sure = [(x, m["ci95"]) for x, m in known if m["ci95"]]
        x = [x for x, _ in sure]
        bands += [
            (
                arm,
                frame.points(
                    [*x, *x[::-1]], [*(ci[1] for _, ci in sure), *(ci[0] for _, ci in sure[::-1])]
                ),
            )
        ] * (len(sure) > 1)
    before = [
        (math.log(k), value) for k in ks if (value := base.get(f"pass@{k}/{family}")) is not None
    ]
    line = frame.points(*zip(*before, strict=True)) if before else ""
    labels = [(frame.at(math.log(k), 0)[0], str(k)) for k in ks]
    return Chart(
        family,
        {"k": Plot("k, samples a problem", lines, bands, labels, frame.y_labels(), BOTTOM, line)},
    )


def _spoken(ks: Sequence[int], family: str, summary: Mapping[str, Any]) -> str:
    return ", ".join(
        f"pass@{k} {m['mean']:.2f}"
        for k in ks
        if (m := summary["metrics"].get(f"pass@{k}/{family}"))
    )


def reliability_charts(comparison: Mapping[str, Any]) -> list[Chart]:
    """Share right over confidence, a chart an arm whose comparison has bins; a dot's area is its
    bin's count. On the diagonal confidence keeps its word.
    """
    return [
        _reliability_chart(i, name, found)
        for i, (name, arm) in enumerate(comparison["arms"].items())
        if (found := arm.get("reliability"))
    ]


def _reliability_chart(arm: int, name: str, found: Mapping[str, Any]) -> Chart:
    frame = Frame(ticks(0, 1), ticks(0, 1))
    bins = [
        b for b in found["bins"] if b["count"] and b["mean"] is not None and b["right"] is not None
    ]
    most = max((b["count"] for b in bins), default=1)
    dots = [
        (*frame.at(b["mean"], b["right"]), round(2 + 7 * math.sqrt(b["count"] / most), 1), _bin(b))
        for b in bins
    ]
    line = Line(
        arm,
        frame.points([b["mean"] for b in bins], [b["right"] for b in bins]),
        f"{name}, share right over confidence",
        "mean",
    )
    ece = "" if found.get("ece") is None else f", ECE {found['ece']:.3f}"
    return Chart(
        f"{name}{ece}",
        {
            "confidence": Plot(
                "confidence",
                [line],
                [],
                frame.x_labels(),
                frame.y_labels(),
                BOTTOM,
                frame.points((0, 1), (0, 1)),
                dots,
            )
        },
    )


def _bin(found: Mapping[str, Any]) -> str:
    return f"confidence {found['low']:g} to {found['high']:g}: said {found['mean']:.2f}, right {found['right']:.2f}, {found['count']} answers"


def on_one_axis(ends: Sequence[float]) -> Callable[[float], float]:
    """Value -> percent of the width of an axis that holds all `ends` and 0."""
    low, high = min([0.0, *ends]), max([0.0, *ends])
    pad = 0.04 * (high - low) or 1.0
    return lambda value: round(100 * (value - low + pad) / (high - low + 2 * pad), 2)
