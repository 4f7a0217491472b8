"""Charts of held-out evaluations: pass@k over k, and reliability diagrams."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from critique_rl.analysis.comparison import (
    ArmSummary,
    Comparison,
    MetricSummary,
    MetricValues,
    Reliability,
    ReliabilityBin,
)
from critique_rl.analysis.evaluations import METRIC
from critique_rl.analysis.page.plots import BOTTOM, Band, Chart, Dot, Frame, Line, Plot, Tick, ticks


def pass_charts(comparison: Comparison) -> list[Chart]:
    """pass@k over k, a chart per family: the arms' means with their intervals, and the base's.

    A family with a single k has no curve.
    """
    ks: dict[str, set[int]] = {}
    for summary in comparison.arms.values():
        for name in summary.metrics:
            match = METRIC.fullmatch(name)
            if match and match[1]:
                ks.setdefault(match[3], set()).add(int(match[1]))
    return [
        _pass_chart(family, sorted(ks[family]), comparison.arms, comparison.base or {})
        for family in ks
        if len(ks[family]) > 1
    ]


def _pass_chart(
    family: str, ks: Sequence[int], arms: Mapping[str, ArmSummary], base: MetricValues
) -> Chart:
    # k is on a logarithmic axis: pass@k is about straight over it.
    frame = Frame([math.log(ks[0]), math.log(ks[-1])], ticks(0, 1))
    lines = []
    bands = []
    for arm, (name, summary) in enumerate(arms.items()):
        known = _pass_summaries(summary, ks, family)
        x = [math.log(k) for k in known]
        means = [metric.mean for metric in known.values()]
        title = f"{name}: {_pass_words(known)}"
        lines.append(Line(arm, frame.points(x, means), title, "mean"))
        bands += _pass_band(frame, arm, known)
    before = {k: base.get(f"pass@{k}/{family}") for k in ks}
    plot = Plot(
        x_name="k, samples a problem",
        lines=lines,
        bands=bands,
        x_ticks=_k_ticks(frame, ks),
        y_ticks=frame.y_labels(),
        zero=BOTTOM,
        base=_base_points(frame, before),
    )
    return Chart(family, {"k": plot})


def _pass_summaries(
    summary: ArmSummary, ks: Sequence[int], family: str
) -> dict[int, MetricSummary]:
    """k -> pass@k of the family, where the arm has it."""
    names = {k: f"pass@{k}/{family}" for k in ks}
    return {k: summary.metrics[name] for k, name in names.items() if name in summary.metrics}


def _pass_words(known: Mapping[int, MetricSummary]) -> str:
    return ", ".join(f"pass@{k} {metric.mean:.2f}" for k, metric in known.items())


def _pass_band(frame: Frame, arm: int, known: Mapping[int, MetricSummary]) -> list[Band]:
    """The band around the points that have an interval; none around a single one."""
    x = []
    low = []
    high = []
    for k, metric in known.items():
        if metric.ci95:
            x.append(math.log(k))
            low.append(metric.ci95[0])
            high.append(metric.ci95[1])
    if len(x) < 2:
        return []
    return [Band(arm, frame.points([*x, *x[::-1]], [*high, *low[::-1]]))]


def _k_ticks(frame: Frame, ks: Sequence[int]) -> list[Tick]:
    return [(frame.at(math.log(k), 0)[0], str(k)) for k in ks]


def _base_points(frame: Frame, before: Mapping[int, float | None]) -> str:
    x = []
    y = []
    for k, value in before.items():
        if value is not None:
            x.append(math.log(k))
            y.append(value)
    return frame.points(x, y)


def reliability_charts(comparison: Comparison) -> list[Chart]:
    """Share right over confidence, a chart per arm whose evaluations hold confidences.

    On the diagonal, confidence keeps its word.
    """
    return [
        _reliability_chart(i, name, arm.reliability)
        for i, (name, arm) in enumerate(comparison.arms.items())
        if arm.reliability
    ]


def _reliability_chart(arm: int, name: str, reliability: Reliability) -> Chart:
    frame = Frame(ticks(0, 1), ticks(0, 1))
    x = []
    y = []
    dots = []
    counts = [part.count for part in reliability.bins]
    for part in reliability.bins:
        # Other programs may write empty bins, which have no mean.
        if part.count and part.mean is not None and part.right is not None:
            x.append(part.mean)
            y.append(part.right)
            across, down = frame.at(part.mean, part.right)
            dots.append(Dot(across, down, _radius(part.count, max(counts)), _bin_words(part)))
    plot = Plot(
        x_name="confidence",
        lines=[Line(arm, frame.points(x, y), f"{name}, share right over confidence", "mean")],
        bands=[],
        x_ticks=frame.x_labels(),
        y_ticks=frame.y_labels(),
        zero=BOTTOM,
        base=frame.points((0, 1), (0, 1)),
        dots=dots,
    )
    ece = "" if reliability.ece is None else f", ECE {reliability.ece:.3f}"
    return Chart(f"{name}{ece}", {"confidence": plot})


def _radius(count: int, most: int) -> float:
    # Areas are compared by eye, not radii.
    return round(2 + 7 * math.sqrt(count / most), 1)


def _bin_words(part: ReliabilityBin) -> str:
    return (
        f"confidence {part.low:g} to {part.high:g}: said {part.mean:.2f}, right {part.right:.2f}, "
        f"{part.count} answers"
    )
