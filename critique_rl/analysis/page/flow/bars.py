"""Bars of the account: the mean change of a class's log-mass by each term, per third of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from critique_rl.analysis.flow.classes import BASE_WRONG, RIGHT
from critique_rl.analysis.flow.term_means import PHASES, TERMS, PhaseMeans, term_means
from critique_rl.analysis.learning_curves import Rows
from critique_rl.analysis.page.flow.panels import SHORT, cut

SHOWN = (RIGHT, BASE_WRONG)
"""Classes that have panels."""
WIDTH = 430
MIDDLE = 292
"""x of a change of 0, right of the names of terms."""
REACH = 78
"""Length of the longest bar."""
TOP = 30
BAR = 13
"""Height of a bar with the space to the next."""
SPACE = 8
"""Between terms."""


@dataclass(frozen=True)
class Bar:
    """One term in one phase."""

    phase: int
    """Index in `PHASES`."""
    x: float
    y: float
    width: float
    words: str
    """The value, beside the bar."""
    words_x: float
    anchor: str
    """Of the words: "start" or "end"."""
    title: str


@dataclass(frozen=True)
class TermLabel:
    """The name of a term, left of its bars."""

    words: str
    y: float


@dataclass(frozen=True)
class BarPanel:
    """One arm and class, in coordinates of the view box."""

    title: str
    summary: str
    width: float
    height: float
    zero: float
    """x of a change of 0."""
    top: float
    bars: Sequence[Bar]
    labels: Sequence[TermLabel]


def bar_panels(rows: Rows) -> dict[str, list[BarPanel]]:
    """Arm -> its panels of the right completions and of the base's wrong ones.

    Args:
        rows: metrics.jsonl by arm and seed.
    """
    panels: dict[str, list[BarPanel]] = {}
    for kind in SHOWN:
        means = term_means(rows, kind)
        # One scale for all arms of a class: bars can be compared downwards.
        largest = max((_largest(terms) for terms in means.values()), default=0.0)
        for arm, terms in means.items():
            panel = _panel(arm, kind, terms, largest or 1.0)
            panels.setdefault(arm, []).append(panel)
    return panels


def _largest(terms: Mapping[str, PhaseMeans]) -> float:
    largest = 0.0
    for phases in terms.values():
        for value in phases:
            size = abs(value or 0.0)
            largest = max(largest, size)
    return largest


def _panel(arm: str, kind: str, terms: Mapping[str, PhaseMeans], largest: float) -> BarPanel:
    bars: list[Bar] = []
    labels = []
    words = []
    y = float(TOP)
    for term, phases in terms.items():
        name = TERMS[term]
        height = BAR * len(PHASES)
        middle = y + height / 2
        labels.append(TermLabel(name, middle))
        values = []
        for phase, value in enumerate(phases):
            if value is not None:
                top = y + BAR * phase
                bar = _bar(name, phase, value, top, largest)
                bars.append(bar)
                values.append(bar.words)
        words.append(f"{name} {', '.join(values)}")
        y += height + SPACE
    return BarPanel(
        title=cut(f"{arm}: {SHORT[kind]}"),
        summary=f"{arm}, change of log-mass of {SHORT[kind]} by term: {'; '.join(words)}.",
        width=WIDTH,
        height=y + SPACE,
        zero=MIDDLE,
        top=TOP,
        bars=bars,
        labels=labels,
    )


def _bar(name: str, phase: int, value: float, y: float, largest: float) -> Bar:
    length = round(REACH * abs(value) / largest, 2)
    x = MIDDLE - length
    words_x = x - 4
    anchor = "end"
    if value >= 0:
        x = float(MIDDLE)
        words_x = x + length + 4
        anchor = "start"
    words = f"{value:+.2g}"
    title = f"{name}, {PHASES[phase]}: {words} nats per accounted update"
    return Bar(phase, round(x, 2), y, length, words, round(words_x, 2), anchor, title)
