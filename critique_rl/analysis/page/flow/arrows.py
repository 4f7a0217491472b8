"""Arrows: each held-out problem from before training to the end, in the plane of the mass of the
base's own wrong answers (to the right) and of right ones (upwards).

The two masses add up to at most 1, so arrows stay under the diagonal. One along the diagonal moved
mass from the error to the answer; one along the floor took it from the error and gave it elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from critique_rl.analysis.flow.classes import BASE_WRONG, RIGHT
from critique_rl.analysis.flow.problem_changes import ProblemChange, problem_changes
from critique_rl.analysis.flow.series import Series
from critique_rl.analysis.page.flow.panels import Box, cut, share_ticks
from critique_rl.analysis.page.plots import Tick

BOX = Box(width=346, height=248, left=44, right=332, top=28, bottom=204)
MOST = 60
"""Arrows of a panel."""
LONGEST_ID = 100
"""Signs of a problem's id; an id may be all of a question."""
SHORTEST = 4
"""Length under which an arrow is drawn as a dot."""


@dataclass(frozen=True)
class Arrow:
    """One problem."""

    x: float
    y: float
    to_x: float
    to_y: float
    moved: bool
    """False for a dot."""
    title: str


@dataclass(frozen=True)
class ArrowPanel:
    """One arm in one family, in coordinates of the view box."""

    title: str
    summary: str
    arrows: Sequence[Arrow]
    note: str
    """What is left out; "" for nothing."""
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]


def arrow_panel(arm: str, family: str, runs: Mapping[int, Series]) -> ArrowPanel:
    """The panel of one arm and family.

    Args:
        arm: Its name.
        family: One that its problems have.
        runs: Seed -> series.
    """
    result = problem_changes(runs, family)
    count = len(result.changes)
    shown = _evenly(result.changes)
    notes = []
    if result.hidden:
        notes.append(f"{result.hidden} of {count + result.hidden} cannot be shown")
    if len(shown) < count:
        notes.append(f"{len(shown)} of {count} are drawn")
    more_right = 0
    for change in result.changes:
        if change.after[RIGHT] > 0.5:
            more_right += 1
    summary = (
        f"{arm} on {family}: {count} problems; right holds more than half of the mass of "
        f"{more_right} at the end."
    )
    return ArrowPanel(
        title=cut(f"{arm}: {family}"),
        summary=summary,
        arrows=[_arrow(change) for change in shown],
        note="; ".join(notes),
        x_ticks=[(BOX.across(share, 1), f"{share:g}") for share in (0, 0.5, 1)],
        y_ticks=share_ticks(BOX),
    )


def _evenly(changes: Sequence[ProblemChange]) -> list[ProblemChange]:
    """At most `MOST` problems at even distances in the order of what they moved to right."""
    if len(changes) <= MOST:
        return list(changes)
    ordered = sorted(changes, key=_gain)
    step = (len(ordered) - 1) / (MOST - 1)
    chosen = []
    for i in range(MOST):
        place = round(i * step)
        chosen.append(ordered[place])
    return chosen


def _gain(change: ProblemChange) -> float:
    return change.after[RIGHT] - change.before[RIGHT]


def _arrow(change: ProblemChange) -> Arrow:
    wrong = change.before[BASE_WRONG]
    right = change.before[RIGHT]
    wrong_after = change.after[BASE_WRONG]
    right_after = change.after[RIGHT]
    x = BOX.across(wrong, 1)
    y = BOX.up(right)
    to_x = BOX.across(wrong_after, 1)
    to_y = BOX.up(right_after)
    title = (
        f"{cut(change.id, LONGEST_ID)}: base's wrong {wrong:.3f} to {wrong_after:.3f}, "
        f"right {right:.3f} to {right_after:.3f}"
    )
    length = math.hypot(to_x - x, to_y - y)
    return Arrow(x, y, to_x, to_y, length >= SHORTEST, title)
