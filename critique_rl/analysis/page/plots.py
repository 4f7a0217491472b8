"""Plots as coordinates in an SVG's view box; the markup is `templates/plots.jinja`.

An arm is an index, which `look` turns into a hue and a dash pattern: arms differ in print and for
the colour-blind too. Left out: matplotlib, which is slow to import and whose SVG follows no
dark mode.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from critique_rl.analysis.formats import short

HUES = 8
DASHES = 4
# Of every plot, in units of its view box.
WIDTH = 424
HEIGHT = 250
# The edges of the drawing; what is beyond them is for labels.
LEFT = 44
RIGHT = 404
TOP = 12
BOTTOM = 208
STEP_FACTORS = (1, 2, 2.5, 5, 10)
"""A step between ticks is one of these times a power of ten."""
POINTS = 60_000
"""Points of all curves together, about 10 bytes each: they keep a page of many arms under 2 MB."""
SEEDS_DRAWN = 20
"""Runs up to which every seed is drawn beside the mean."""

Point = tuple[float, float]
"""(x, y), in units of the view box."""
Tick = tuple[float, str]
"""(position, label)."""


@dataclass(frozen=True)
class Line:
    """One polyline."""

    arm: int
    """Index of the arm, which colours it."""
    points: str
    """As an SVG's `points` has them: "x,y x,y"."""
    title: str
    kind: str
    """"mean" (thick) or "seed"."""


@dataclass(frozen=True)
class Band:
    """The area of an interval around a line."""

    arm: int
    """Index of the arm, which colours it."""
    points: str
    """The polygon, as an SVG's `points` has it."""


@dataclass(frozen=True)
class Dot:
    """One bin of a reliability diagram."""

    x: float
    y: float
    radius: float
    title: str


@dataclass(frozen=True)
class Plot:
    """One drawing in coordinates of the view box."""

    x_name: str
    lines: Sequence[Line]
    bands: Sequence[Band]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    zero: float
    """Height of y = 0."""
    base: str = ""
    """Points of the dotted line: the untrained policy, or a diagonal; "" for none."""
    dots: Sequence[Dot] = ()


@dataclass(frozen=True)
class Chart:
    """One quantity: its plots by axis."""

    title: str
    plots: Mapping[str, Plot]


@dataclass(frozen=True)
class Frame:
    """The map from values to coordinates. Values outside it are drawn at its edge."""

    x: Sequence[float]
    """Ticks of the x axis, evenly spaced and ascending."""
    y: Sequence[float]
    """Ticks of the y axis, evenly spaced and ascending."""

    def at(self, x: float, y: float) -> Point:
        """Coordinates of a value, to a tenth of a unit."""
        across = _fraction(x, self.x)
        up = _fraction(y, self.y)
        up = min(1.0, max(0.0, up))
        position = LEFT + (RIGHT - LEFT) * across
        # An SVG's y grows downwards.
        height = BOTTOM - (BOTTOM - TOP) * up
        return round(position, 1), round(height, 1)

    def points(self, x: Iterable[float], y: Iterable[float]) -> str:
        """A line through values.

        Args:
            x: one per point.
            y: one per point.

        Returns:
            The line, as an SVG's `points` has it; "" without a point.
        """
        words = []
        for value in zip(x, y, strict=True):
            across, down = self.at(*value)
            words.append(f"{across:g},{down:g}")
        return " ".join(words)

    @property
    def zero(self) -> float:
        """The height of y = 0."""
        _, height = self.at(self.x[0], 0)
        return height

    def x_labels(self) -> list[Tick]:
        """The ticks of the x axis."""
        ticks = []
        for value in self.x:
            position, _ = self.at(value, 0)
            ticks.append((position, label(value)))
        return ticks

    def y_labels(self) -> list[Tick]:
        """The ticks of the y axis."""
        ticks = []
        for value in self.y:
            _, height = self.at(self.x[0], value)
            ticks.append((height, f"{value:g}"))
        return ticks


def _fraction(value: float, ticks: Sequence[float]) -> float:
    """The place of a value between the first and the last tick: 0 to 1, or outside."""
    first = ticks[0]
    length = ticks[-1] - first
    return (value - first) / length


def polygon_points(
    frame: Frame, x: Sequence[float], low: Sequence[float], high: Sequence[float]
) -> str:
    """An area between two lines: along the upper one, and back along the lower one.

    Args:
        frame: the map to coordinates.
        x: ascending values.
        low: the lower line, one value per x.
        high: the upper line, one value per x.

    Returns:
        The polygon, as an SVG's `points` has it.
    """
    there_and_back = [*x, *reversed(x)]
    edges = [*high, *reversed(low)]
    return frame.points(there_and_back, edges)


def look(arm: int) -> tuple[int, int]:
    """(hue, dash pattern) of an arm: 32 that differ, and neighbours differ in both."""
    # arm % DASHES would repeat with the hues, as 4 divides 8. Moving on by one per round of hues
    # gives every hue all patterns.
    rounds = arm // HUES
    return arm % HUES, (arm + rounds) % DASHES


def label(number: float) -> str:
    """250000 -> 250k; beyond 10^12, where letters end, 2.5e15."""
    if number >= 1e12:
        return f"{number:.3g}".replace("e+", "e")
    return short(number)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers for an axis that holds 0, `low` and `high`.

    Returns:
        4 to 7 numbers from the last at or below min(low, 0) to the first at or above `high`, in
        steps of 1, 2, 2.5 or 5 times a power of ten.
    """
    low = min(0.0, low)
    span = high - low
    step = _tick_step(span)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    # An axis of zeros has a length too.
    last = max(last, first + 1)
    numbers = []
    for i in range(first, last + 1):
        # 3 * 0.1 is 0.30000000000000004: twelve digits round that away.
        digits = f"{i * step:.12g}"
        numbers.append(float(digits))
    return numbers


def _tick_step(span: float) -> float:
    """The smallest round step of which five reach over the span."""
    power = 1.0
    if span > 0:
        exponent = math.floor(math.log10(span / 5))
        power = 10.0**exponent
    # The tolerance keeps a span of, say, 0.6000000000000001 from a wider step.
    wide_enough = span * (1 - 1e-9)
    for factor in STEP_FACTORS:
        if power * factor * 5 >= wide_enough:
            break
    return power * factor


def scale_to_percent(values: Sequence[float]) -> Callable[[float], float]:
    """A map from values to places on one axis.

    Args:
        values: the axis holds all of them, and 0.

    Returns:
        A function from a value to percent of the axis's width.
    """
    low = min([0.0, *values])
    high = max([0.0, *values])
    # Room for the ends of whiskers; 1 where there is nothing but 0, for the division below.
    margin = 0.04 * (high - low) or 1.0
    width = high - low + 2 * margin

    def percent(value: float) -> float:
        distance = value - low + margin
        return round(100 * distance / width, 2)

    return percent
