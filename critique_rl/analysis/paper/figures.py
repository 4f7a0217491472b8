"""Figures of a comparison: differences from the control, arms with every seed, learning curves.

A note under each figure says what intervals cover, so that the file can be read alone. Functions
take a `Comparison` or curves, and no folder. They draw inside `style.paper_style`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from critique_rl.analysis.comparison import Comparison, Ends
from critique_rl.analysis.evaluations import METRIC
from critique_rl.analysis.formats import plural, short
from critique_rl.analysis.learning_curves import MeanCurve
from critique_rl.analysis.paper.curves import PaperCurves
from critique_rl.analysis.paper.style import (
    ACCENT,
    COLUMN,
    DASHES,
    INK,
    MARKERS,
    NOTE,
    PAGE,
    SOFT,
    colour_of,
    name_lines,
    new_figure,
    note_lines,
)
from critique_rl.analysis.paper.words import (
    BEFORE,
    arm_coverage,
    arm_size,
    differences_on,
    pair_coverage,
    primary_summaries,
    sizes_in_words,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_TOGETHER = 6
"""Arms in one panel; more have a panel each."""
PANEL_COLUMNS = 3
ROW_HEIGHT = 0.27
"""Of a row of one line, in inches."""
LINE_HEIGHT = 0.11
LEGEND_WIDTH = 28
"""Characters of an entry of which two fit side by side."""


@dataclass(frozen=True)
class Row:
    """One line of a plot of intervals."""

    name: str
    middle: float
    inner: Ends | None
    """The interval of the row alone."""
    outer: Ends | None = None
    """The interval that holds for all rows at once."""
    seeds: Sequence[float] = ()
    """One value per seed."""
    is_control: bool = False


# ---- intervals -----------------------------------------------------------------------------------


def draw_differences(comparison: Comparison) -> Figure | None:
    """Every arm minus the control on the primary metric.

    Returns:
        A row per arm: the difference, its 95 % interval, the interval among all pairs where it is
        known, and the difference of each seed. None without a pair of arms.
    """
    pairs = differences_on(comparison, comparison.primary)
    if not pairs:
        return None
    rows = []
    for pair in pairs:
        seeds = list(pair.per_seed.values())
        rows.append(Row(pair.arm, pair.difference, pair.ci95, pair.together, seeds))
    notes = [f"Thick: {pair_coverage(pairs)}."]
    if any(pair.together for pair in pairs):
        notes.append("Thin: intervals of all pairs of arms, which hold at once.")
    notes.append("Circles: seeds.")
    label = f"{comparison.primary}, arm minus {comparison.control}"
    figure, axes = _interval_plot(rows, label, " ".join(notes))
    axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
    return figure


def draw_arms(comparison: Comparison) -> Figure | None:
    """Each arm's mean on the primary metric, with its 95 % interval and every seed.

    Returns:
        A row per arm, with the policy before training as a line. None where no arm has the metric.
    """
    summaries = primary_summaries(comparison)
    if not summaries:
        return None
    rows = []
    for arm, summary in summaries.items():
        seeds = list(summary.per_seed.values())
        name = arm
        if arm == comparison.control:
            name = f"{arm} (control)"
        is_control = arm == comparison.control
        rows.append(Row(name, summary.mean, summary.ci95, None, seeds, is_control))
    coverage = arm_coverage(comparison.primary, summaries.values())
    sizes = sizes_in_words(arm_size(summary) for summary in summaries.values())
    notes = [f"Diamonds: means with {coverage}; {sizes}.", "Circles: seeds."]
    base = (comparison.base or {}).get(comparison.primary)
    if base is not None:
        notes.append(f"Dashed: {BEFORE}.")
    figure, axes = _interval_plot(rows, comparison.primary, " ".join(notes))
    if base is not None:
        axes.axvline(base, color=INK, linewidth=0.9, linestyle=(0, (3, 2)), zorder=1)
    return figure


def _interval_plot(rows: Sequence[Row], label: str, note: str) -> tuple[Figure, Axes]:
    """A row per name, the first on top."""
    from matplotlib.ticker import MaxNLocator

    names = [name_lines(row.name) for row in rows]
    note = note_lines(note)
    lines = sum(name.count("\n") for name in names) + note.count("\n")
    figure = new_figure(COLUMN, 0.62 + ROW_HEIGHT * len(rows) + LINE_HEIGHT * lines)
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        _draw_row(axes, place, row)
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(label)
    figure.supxlabel(note, fontsize=6, color=NOTE)
    return figure, axes


def _draw_row(axes: Axes, place: int, row: Row) -> None:
    colour = SOFT if row.is_control else ACCENT
    if row.outer is not None:
        low, high = row.outer
        axes.plot([low, high], [place, place], color=colour, linewidth=0.8, zorder=2)
        axes.plot([low, high], [place, place], "|", color=colour, markersize=5, zorder=2)
    if row.inner is not None:
        axes.plot(
            row.inner, [place, place], color=colour, linewidth=2.2, solid_capstyle="butt", zorder=3
        )
    # Below the interval: on it, a seed near the mean would be hidden.
    below = [place + 0.27] * len(row.seeds)
    axes.scatter(row.seeds, below, s=7, facecolors="none", edgecolors=INK, linewidths=0.5, zorder=4)
    axes.scatter([row.middle], [place], s=20, marker="D", color=colour, edgecolors="w", zorder=5)


# ---- curves --------------------------------------------------------------------------------------


def draw_curves(curves: PaperCurves, control: str) -> Figure:
    """Learning curves: the mean over seeds of each arm and its band.

    Args:
        curves: with at least one arm.
        control: stands behind the other arms where each has a panel.

    Returns:
        One panel for up to `MOST_TOGETHER` arms; else one per arm, with the control in grey.
    """
    if len(curves.arms) <= MOST_TOGETHER:
        return _one_panel(curves)
    return _panels(curves, control)


def band_words(curves: PaperCurves) -> str:
    """What the bands of the curves cover, in a sentence or two."""
    seeds = {mean.seeds for mean in curves.arms.values()}
    if seeds == {1}:
        return "One seed per arm, so there is no band."
    words = "Bands: pointwise 95% t intervals of the mean for new seeds, on the same problems."
    if 1 in seeds:
        words += " A single seed has none."
    return words


def _one_panel(curves: PaperCurves) -> Figure:
    note = note_lines(band_words(curves))
    names = [_curve_name(name, mean) for name, mean in curves.arms.items()]
    columns = 2
    if max(len(line) for name in names for line in name.split("\n")) > LEGEND_WIDTH:
        columns = 1
    legend_lines = sum(1 + name.count("\n") for name in names) / columns
    legend = 0.15 * math.ceil(legend_lines)
    notes = LINE_HEIGHT * note.count("\n")
    height = 2.1 + legend + notes
    figure = new_figure(COLUMN, height)
    axes = figure.add_subplot()
    for arm, mean in enumerate(curves.arms.values()):
        _draw_mean(axes, mean, arm, names[arm])
    _set_curve_axes(axes, curves)
    axes.set_xlabel(curves.spending)
    axes.set_ylabel(curves.metric)
    figure.legend(loc="outside upper center", ncols=columns, handlelength=2.6, columnspacing=1.2)
    figure.supxlabel(note, fontsize=6, color=NOTE)
    return figure


def _curve_name(name: str, mean: MeanCurve) -> str:
    return f"{name_lines(name, 24)} ({plural(mean.seeds, 'seed')})"


def _draw_mean(axes: Axes, mean: MeanCurve, arm: int, name: str) -> None:
    """A mean with its band; the arm's index chooses how it looks."""
    colour = colour_of(arm)
    axes.plot(
        mean.x,
        mean.mean,
        color=colour,
        linestyle=DASHES[arm % len(DASHES)],
        linewidth=1.2,
        marker=MARKERS[arm % len(MARKERS)],
        markersize=2.6,
        # A marker on each of 40 points would hide the line.
        markevery=max(1, len(mean.x) // 6),
        label=name,
    )
    if mean.seeds > 1:
        axes.fill_between(mean.x, mean.low, mean.high, color=colour, alpha=0.13, linewidth=0)


def _set_curve_axes(axes: Axes, curves: PaperCurves) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda amount, _: short(amount)))
    axes.set_xlim(left=0)
    axes.grid(color="#ececec", linewidth=0.5)
    axes.set_axisbelow(True)
    lowest = min(float(mean.mean.min()) for mean in curves.arms.values())
    if METRIC.fullmatch(curves.metric) and lowest >= 0:
        # Bands do not know that they are of shares.
        _, highest = axes.get_ylim()
        top = min(1.02, highest)
        # A line of zeros stays in sight.
        axes.set_ylim(-0.02 * top, top)


def _panels(curves: PaperCurves, control: str) -> Figure:
    names = [name for name in curves.arms if name != control]
    rows = math.ceil(len(names) / PANEL_COLUMNS)
    words = band_words(curves)
    behind = curves.arms.get(control)
    if behind is not None:
        words += f" Grey, dashed: the control, {control} ({plural(behind.seeds, 'seed')})."
    figure = new_figure(PAGE, 0.5 + 1.35 * rows)
    grid = figure.subplots(rows, PANEL_COLUMNS, sharex=True, sharey=True, squeeze=False)
    places = list(grid.flat)
    for axes, name in zip(places, names, strict=False):
        mean = curves.arms[name]
        if behind is not None:
            axes.fill_between(behind.x, behind.low, behind.high, color=SOFT, alpha=0.18, lw=0)
            axes.plot(behind.x, behind.mean, color=SOFT, linestyle=(0, (4, 2)), linewidth=1)
        if mean.seeds > 1:
            axes.fill_between(mean.x, mean.low, mean.high, color=ACCENT, alpha=0.18, lw=0)
        axes.plot(mean.x, mean.mean, color=ACCENT, linewidth=1.3)
        axes.set_title(_curve_name(name, mean), pad=2)
        axes.tick_params(labelbottom=True)
    # After all are drawn: the panels share their axes.
    for axes in places[: len(names)]:
        _set_curve_axes(axes, curves)
    for axes in places[len(names) :]:
        axes.set_visible(False)
    figure.supylabel(curves.metric, fontsize=7.5)
    note = note_lines(words, PAGE)
    figure.supxlabel(f"{curves.spending}\n{note}", fontsize=7)
    return figure
