"""What panels of all three figures share: their plot in the view box, ticks, and short names.

A class is an index in `CLASSES`, from which the style sheet takes fill and hatching.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from critique_rl.analysis.flow.classes import (
    BASE_WRONG,
    CLASSES,
    NEAR_MISS,
    OTHER_WRONG,
    REST,
    RIGHT,
)
from critique_rl.analysis.page.plots import Tick, label, ticks

SHORT = {
    RIGHT: "right",
    BASE_WRONG: "base's wrong",
    NEAR_MISS: "near miss",
    OTHER_WRONG: "other wrong",
    REST: "rest",
}
"""Class -> its label in a panel."""
LONGEST_TITLE = 44
"""Signs of a panel's title; longer ones would leave the panel."""


@dataclass(frozen=True)
class Box:
    """A panel's plot in units of its view box, the map from values of 0 to 1 on its y axis."""

    width: float
    """Of the panel."""
    height: float
    """Of the panel."""
    left: float
    right: float
    top: float
    bottom: float

    def across(self, value: float, end: float) -> float:
        """The x of a value on an axis from 0 to `end`."""
        return round(self.left + (self.right - self.left) * value / end, 2)

    def up(self, share: float) -> float:
        """The y of a share of 0 to 1."""
        return round(self.bottom - (self.bottom - self.top) * share, 2)


def token_ticks(box: Box, end: float) -> list[Tick]:
    """At most four ticks of an axis of tokens that ends at `end`, 0 among them."""
    values = [value for value in ticks(0, end) if value <= end]
    step = 1
    while len(values[::step]) > 4:
        step += 1
    return [(box.across(value, end), label(value)) for value in values[::step]]


def share_ticks(box: Box) -> list[Tick]:
    """Ticks of an axis from 0 to 1 that grows upwards."""
    return [(box.up(share), f"{share:g}") for share in (0, 0.5, 1)]


def mass_label(mass: float) -> str:
    """0.583 -> ".58"; what would round to 0 is told from nothing at all."""
    if 0 < mass < 0.005:
        return "<.01"
    words = f"{mass:z.2f}"
    return words.removeprefix("0")


def cut(text: str, most: int = LONGEST_TITLE) -> str:
    """The beginning of a text that has more than `most` signs."""
    if len(text) <= most:
        return text
    return f"{text[: most - 3]}..."


def mass_words(masses: Mapping[str, float]) -> str:
    """Masses as a sentence's list: "right 0.583, base's wrong 0.100"."""
    words = [f"{SHORT[kind]} {masses[kind]:z.3f}" for kind in CLASSES]
    return ", ".join(words)
