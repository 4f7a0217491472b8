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
from critique_rl.analysis.evaluations import METRIC, PASS
from critique_rl.analysis.page.plots import (
    BOTTOM,
    Band,
    Chart,
    Dot,
    Frame,
    Line,
    Plot,
    Tick,
    polygon_points,
    ticks,
)

PassSummaries = dict[int, MetricSummary]
"""k -> pass@k of one family and arm."""


def pass_charts(comparison: Comparison) -> list[Chart]:
    """pass@k over k, a chart per family.

    Returns:
        Charts with the arms' means, their intervals and the base's values. A family with a single
        k has no curve, and so no chart.
    """
    base = comparison.base or {}
    charts = []
    for family, ks in _family_ks(comparison).items():
        if len(ks) > 1:
            charts.append(_pass_chart(family, sorted(ks), comparison.arms, base))
    return charts


def _family_ks(comparison: Comparison) -> dict[str, set[int]]:
    """Family -> the k of its pass@k."""
    family_ks: dict[str, set[int]] = {}
    for summary in comparison.arms.values():
        for name in summary.metrics:
            match = METRIC.fullmatch(name)
            if match and match[1] == PASS:
                k = int(match[2])
                family_ks.setdefault(match[4], set()).add(k)
    return family_ks


def _pass_chart(
    family: str, ks: Sequence[int], arms: Mapping[str, ArmSummary], base: MetricValues
) -> Chart:
    # k is on a logarithmic axis: pass@k is about straight over it.
    ends = [math.log(ks[0]), math.log(ks[-1])]
    frame = Frame(ends, ticks(0, 1))
    lines = []
    bands = []
    for arm, (name, summary) in enumerate(arms.items()):
        known = _pass_summaries(summary, ks, family)
        x = [math.log(k) for k in known]
        means = [metric.mean for metric in known.values()]
        title = f"{name}: {_pass_words(known)}"
        points = frame.points(x, means)
        lines.append(Line(arm, points, title, "mean"))
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


def _pass_summaries(summary: ArmSummary, ks: Sequence[int], family: str) -> PassSummaries:
    """k -> pass@k of the family, where the arm has it."""
    known = {}
    for k in ks:
        name = f"pass@{k}/{family}"
        if name in summary.metrics:
            known[k] = summary.metrics[name]
    return known


def _pass_words(known: PassSummaries) -> str:
    words = [f"pass@{k} {metric.mean:.2f}" for k, metric in known.items()]
    return ", ".join(words)


def _pass_band(frame: Frame, arm: int, known: PassSummaries) -> list[Band]:
    """The band around the points that have an interval; none around a single one."""
    x = []
    low = []
    high = []
    for k, metric in known.items():
        if metric.ci95:
            lower, upper = metric.ci95
            x.append(math.log(k))
            low.append(lower)
            high.append(upper)
    if len(x) < 2:
        return []
    polygon = polygon_points(frame, x, low, high)
    return [Band(arm, polygon)]


def _k_ticks(frame: Frame, ks: Sequence[int]) -> list[Tick]:
    ticks_of_k = []
    for k in ks:
        position, _ = frame.at(math.log(k), 0)
        ticks_of_k.append((position, str(k)))
    return ticks_of_k


def _base_points(frame: Frame, before: Mapping[int, float | None]) -> str:
    x = []
    y = []
    for k, value in before.items():
        if value is not None:
            x.append(math.log(k))
            y.append(value)
    return frame.points(x, y)


def reliability_charts(comparison: Comparison) -> list[Chart]:
    """Share right over confidence, a chart per arm.

    Returns:
        Charts of the arms whose evaluations hold confidences. On the diagonal, confidence keeps
        its word.
    """
    charts = []
    for i, (name, arm) in enumerate(comparison.arms.items()):
        if arm.reliability:
            charts.append(_reliability_chart(i, name, arm.reliability))
    return charts


def _reliability_chart(arm: int, name: str, reliability: Reliability) -> Chart:
    frame = Frame(ticks(0, 1), ticks(0, 1))
    x = []
    y = []
    dots = []
    most = max((part.count for part in reliability.bins), default=1)
    for part in reliability.bins:
        # Other programs may write empty bins, which have no mean.
        if part.count and part.mean is not None and part.right is not None:
            x.append(part.mean)
            y.append(part.right)
            across, down = frame.at(part.mean, part.right)
            radius = _radius(part.count, most)
            dots.append(Dot(across, down, radius, _bin_words(part)))
    title = f"{name}, share right over confidence"
    line = Line(arm, frame.points(x, y), title, "mean")
    plot = Plot(
        x_name="confidence",
        lines=[line],
        bands=[],
        x_ticks=frame.x_labels(),
        y_ticks=frame.y_labels(),
        zero=BOTTOM,
        base=frame.points((0, 1), (0, 1)),
        dots=dots,
    )
    heading = name
    if reliability.ece is not None:
        heading += f", ECE {reliability.ece:.3f}"
    return Chart(heading, {"confidence": plot})


def _radius(count: int, most: int) -> float:
    # Areas are compared by eye, not radii.
    radius = 2 + 7 * math.sqrt(count / most)
    return round(radius, 1)


def _bin_words(part: ReliabilityBin) -> str:
    interval = f"{part.low:g} to {part.high:g}"
    means = f"said {part.mean:.2f}, right {part.right:.2f}"
    return f"confidence {interval}: {means}, {part.count} answers"
