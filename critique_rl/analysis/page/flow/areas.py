"""Stacked areas: masses of the five classes over generated tokens, one panel per arm and family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from critique_rl.analysis.flow.classes import CLASSES
from critique_rl.analysis.flow.trajectories import Trajectories, Trajectory
from critique_rl.analysis.page.flow.panels import (
    SHORT,
    Box,
    cut,
    mass_label,
    mass_words,
    share_ticks,
    token_ticks,
)
from critique_rl.analysis.page.plots import Tick

BOX = Box(width=346, height=206, left=34, right=206, top=26, bottom=162)
LINE = 15
"""Height of an end label's line."""
SINGLE = 4
"""Width of the areas of a point without neighbours that are shown."""


@dataclass(frozen=True)
class Area:
    """A class's area."""

    kind: int
    """Index in `CLASSES`."""
    path: str
    """The outline, as an SVG's `d` has it."""


@dataclass(frozen=True)
class EndLabel:
    """A class's name and its mass at the end, right of its area."""

    kind: int
    words: str
    y: float
    """Of the words' line, moved so that no two overlap."""
    edge: float | None
    """The middle of the area's end; None where it cannot be shown."""


@dataclass(frozen=True)
class Strip:
    """Part of the x axis: what is told of one point, or a gap in which nothing can be shown."""

    x: float
    width: float
    words: str


@dataclass(frozen=True)
class AreaPanel:
    """One arm in one family, in coordinates of the view box."""

    title: str
    summary: str
    """What the panel shows, for those who do not see it."""
    areas: Sequence[Area]
    labels: Sequence[EndLabel]
    gaps: Sequence[Strip]
    points: Sequence[Strip]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]


AreaPanels = dict[str, dict[str, AreaPanel]]
"""Arm -> family -> panel."""


def area_panels(by_family: Trajectories) -> AreaPanels:
    """A panel per arm and family; all have one x axis.

    Args:
        by_family: Family -> arm -> trajectory.
    """
    end = 1.0
    for arms in by_family.values():
        for trajectory in arms.values():
            last = trajectory.tokens[-1]
            end = max(end, last)
    panels: AreaPanels = {}
    for family, arms in by_family.items():
        for arm, trajectory in arms.items():
            panel = _panel(arm, family, trajectory, end)
            row = panels.setdefault(arm, {})
            row[family] = panel
    return panels


def _panel(arm: str, family: str, trajectory: Trajectory, end: float) -> AreaPanel:
    places = [BOX.across(tokens, end) for tokens in trajectory.tokens]
    heights = [_heights(masses) for masses in trajectory.masses]
    areas = []
    for run in _shown_runs(trajectory.shown):
        x = [places[i] for i in run]
        edges = [heights[i] for i in run]
        if len(run) == 1:
            middle = x[0]
            left = _within(middle - SINGLE / 2)
            right = _within(middle + SINGLE / 2)
            x = [left, right]
            edges = edges * 2
        areas += _areas(x, edges)
    return AreaPanel(
        title=cut(f"{arm}: {family}"),
        summary=f"{arm} on {family}. {_summary(trajectory)}",
        areas=areas,
        labels=_labels(trajectory, heights[-1]),
        gaps=_gaps(trajectory.shown, places),
        points=_points(trajectory, places),
        x_ticks=token_ticks(BOX, end),
        y_ticks=share_ticks(BOX),
    )


def _within(x: float) -> float:
    """The nearest place on the plot."""
    place = max(BOX.left, x)
    place = min(BOX.right, place)
    return round(place, 2)


def _heights(masses: Mapping[str, float]) -> list[float]:
    """The edges of one point's areas, from the bottom to the top: one more than classes."""
    total = 0.0
    heights = [BOX.up(0)]
    for kind in CLASSES:
        total += masses[kind]
        heights.append(BOX.up(total))
    return heights


def _shown_runs(shown: Sequence[bool]) -> list[list[int]]:
    """Indices of points that are shown, neighbours together."""
    runs: list[list[int]] = []
    for i, is_shown in enumerate(shown):
        if not is_shown:
            continue
        if i == 0 or not shown[i - 1]:
            runs.append([])
        runs[-1].append(i)
    return runs


def _areas(x: Sequence[float], edges: Sequence[Sequence[float]]) -> list[Area]:
    """The areas between neighbouring edges.

    Args:
        x: A place per point.
        edges: The heights of each point's edges, from the bottom.
    """
    areas = []
    for kind in range(len(CLASSES)):
        there = []
        back = []
        for place, heights in zip(x, edges, strict=True):
            low = heights[kind]
            high = heights[kind + 1]
            there.append(f"{place:g},{high:g}")
            back.append(f"{place:g},{low:g}")
        back.reverse()
        outline = " L".join(there + back)
        areas.append(Area(kind, f"M{outline} Z"))
    return areas


def _gaps(shown: Sequence[bool], places: Sequence[float]) -> list[Strip]:
    """Where nothing can be shown: up to the neighbours of points that cannot."""
    hidden = [not is_shown for is_shown in shown]
    gaps = []
    for run in _shown_runs(hidden):
        before = run[0] - 1
        left = places[max(0, before)]
        # A slice that begins behind the end is empty.
        after = places[run[-1] + 1 :]
        right = places[-1]
        if after:
            right = after[0]
        width = round(right - left, 2)
        gap = Strip(left, width, "fewer than 10 effective samples")
        gaps.append(gap)
    return gaps


def _points(trajectory: Trajectory, places: Sequence[float]) -> list[Strip]:
    """A strip around each shown point, from halfway to its neighbours."""
    borders = [places[0]]
    for left, right in pairwise(places):
        middle = (left + right) / 2
        borders.append(middle)
    borders.append(places[-1])
    strips = []
    for i, masses in enumerate(trajectory.masses):
        if trajectory.shown[i]:
            left = round(borders[i], 2)
            right = round(borders[i + 1], 2)
            width = round(right - left, 2)
            tokens = trajectory.tokens[i]
            words = f"{tokens:,.0f} generated tokens: {mass_words(masses)}"
            strip = Strip(left, width, words)
            strips.append(strip)
    return strips


def _summary(trajectory: Trajectory) -> str:
    """The first and the last masses in words."""
    first = trajectory.masses[0]
    last = trajectory.masses[-1]
    if not trajectory.shown[-1]:
        return "The masses at the end cannot be shown: fewer than 10 effective samples."
    words = []
    for kind in CLASSES:
        before = first[kind]
        after = last[kind]
        words.append(f"{SHORT[kind]} from {before:z.3f} to {after:z.3f}")
    sentence = ", ".join(words)
    return f"Mass from the first to the last point: {sentence}."


def _labels(trajectory: Trajectory, edges: Sequence[float]) -> list[EndLabel]:
    """A label per class, beside the end of its area; a key where the end cannot be shown."""
    if not trajectory.shown[-1]:
        return _key()
    middles = []
    for low, high in pairwise(edges):
        middle = (low + high) / 2
        middles.append(round(middle, 2))
    last = trajectory.masses[-1]
    labels = []
    for index, y in enumerate(_spread(middles)):
        kind = CLASSES[index]
        mass = mass_label(last[kind])
        words = f"{SHORT[kind]} {mass}"
        label = EndLabel(index, words, round(y, 2), middles[index])
        labels.append(label)
    return labels


def _key() -> list[EndLabel]:
    """Labels without masses, whose places say nothing of any."""
    labels = []
    y = BOX.bottom
    for index, kind in enumerate(CLASSES):
        labels.append(EndLabel(index, SHORT[kind], y, None))
        y -= LINE
    return labels


def _spread(heights: Sequence[float]) -> list[float]:
    """Heights of labels, from the lowest on the page upwards, `LINE` apart and within the plot."""
    placed: list[float] = []
    limit = BOX.bottom
    for height in heights:
        placed.append(min(height, limit))
        limit = placed[-1] - LINE
    # The uppermost ones may have left the plot: push back down.
    limit = BOX.top
    for i in reversed(range(len(placed))):
        placed[i] = max(placed[i], limit)
        limit = placed[i] + LINE
    return placed
