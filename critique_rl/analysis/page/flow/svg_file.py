"""The stacked areas as an SVG file of its own, with title and caption: for a README or a paper.

It has literal colours, as converters to PDF know no variables of style sheets; in a browser it
follows dark mode.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from critique_rl.analysis.flow.series import Flow
from critique_rl.analysis.flow.trajectories import trajectories
from critique_rl.analysis.page.environment import environment
from critique_rl.analysis.page.flow.areas import BOX, AreaPanel, area_panels
from critique_rl.analysis.page.flow.captions import area_caption
from critique_rl.config.checks import ConfigError

COLUMNS = 3
"""Panels beside each other, where a figure has a single family or arm."""
MARGIN = 12
HEADING = 34
"""Height above the panels."""
TEXT_LINE = 16
NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""Signs that no XML document may hold; a family's name is data."""
SIGN = 6.7
"""Mean width of a sign of the caption, in the widest of the usual fonts."""


@dataclass(frozen=True)
class PlacedPanel:
    """A panel and the place of its corner."""

    panel: AreaPanel
    x: float
    y: float


def flow_svg(flow: Flow, arms: Sequence[str] = (), family: str = "") -> str:
    """The figure of some arms and families.

    Args:
        flow: Scored series.
        arms: Those drawn, in this order; none for all.
        family: The one drawn; "" for all, as columns.

    Returns:
        An SVG document.

    Raises:
        ConfigError: An arm or the family has no masses.
    """
    chosen = {arm: flow[arm] for arm in _known("arm", arms or list(flow), list(flow))}
    measured = trajectories(chosen, {})
    if family:
        [name] = _known("family", [family], list(measured))
        measured = {name: measured[name]}
    panels = area_panels(measured)
    rows = []
    flat: list[AreaPanel] = []
    columns = 1
    for by_family in panels.values():
        row = list(by_family.values())
        rows.append(row)
        flat += row
        columns = max(columns, len(row))
    if columns == 1:
        # A single family: arms stand beside each other.
        columns = min(COLUMNS, len(flat))
        rows = []
        for start in range(0, len(flat), columns):
            end = start + columns
            rows.append(flat[start:end])
    width = columns * BOX.width + 2 * MARGIN
    caption = area_caption(chosen, measured)
    lines = textwrap.wrap(caption, int((width - 2 * MARGIN) / SIGN))
    below = HEADING + len(rows) * BOX.height
    template = environment().get_template("flow.svg.jinja")
    document = template.render(
        placed=_place(rows),
        box=BOX,
        width=width,
        height=below + (len(lines) + 1) * TEXT_LINE,
        margin=MARGIN,
        below=below,
        line=TEXT_LINE,
        lines=lines,
        summary=" ".join(panel.summary for panel in flat),
    )
    return NO_XML.sub("", document)


def _known(noun: str, names: Sequence[str], known: Sequence[str]) -> Sequence[str]:
    """The names, all of which are known.

    Raises:
        ConfigError: One is not.
    """
    for name in names:
        if name not in known:
            there = ", ".join(known)
            raise ConfigError(f"{noun} {name} has no masses to draw; those that have: {there}")
    return names


def _place(rows: Sequence[Sequence[AreaPanel]]) -> list[PlacedPanel]:
    placed = []
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            x = MARGIN + j * BOX.width
            y = HEADING + i * BOX.height
            item = PlacedPanel(panel, x, y)
            placed.append(item)
    return placed
