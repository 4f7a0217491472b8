"""The report's section "Where the probability went": figures, captions and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from critique_rl.analysis.flow.classes import CLASSES
from critique_rl.analysis.flow.series import Flow, families_of
from critique_rl.analysis.flow.table import CANNOT, NOTE, flow_tables
from critique_rl.analysis.flow.term_means import PHASES, TERMS, account_is_logged, term_means
from critique_rl.analysis.flow.trajectories import Trajectories, Trajectory, trajectories
from critique_rl.analysis.learning_curves import Rows
from critique_rl.analysis.page.flow.areas import AreaPanels, area_panels
from critique_rl.analysis.page.flow.arrows import ArrowPanel, arrow_panel
from critique_rl.analysis.page.flow.bars import SHOWN, BarPanel, bar_panels
from critique_rl.analysis.page.flow.captions import (
    area_caption,
    arrow_caption,
    bar_caption,
    not_drawn_words,
)
from critique_rl.analysis.page.flow.panels import SHORT
from critique_rl.analysis.table import Table

FAMILIES = 4
"""Families that a figure draws; a task can have a hundred."""


@dataclass(frozen=True)
class FlowSection:
    """All that the page shows of masses."""

    families: Sequence[str]
    """Those that are drawn, in the order of columns."""
    areas: AreaPanels
    area_caption: str
    arrows: dict[str, dict[str, ArrowPanel]]
    """Arm -> family -> panel, of arms with scored snapshots."""
    arrow_caption: str
    bars: dict[str, list[BarPanel]]
    bar_caption: str
    shares: list[Table]
    """What became of the freed mass, per family."""
    shares_note: str
    masses: list[Table]
    """The numbers behind the areas, per family."""
    account: list[Table]
    """The numbers behind the bars, per class."""
    not_drawn: str


def flow_section(
    flow: Flow, rows: Rows, family: str = "", accounted: Sequence[str] = ()
) -> FlowSection | None:
    """The section; None where no masses were scored or logged.

    Args:
        flow: Scored series, from `read_flow`.
        rows: metrics.jsonl by arm and seed.
        family: The one that is drawn first: of the primary metric.
        accounted: The families whose masses have an account of terms, or "all".
    """
    measured = trajectories(flow, rows)
    if not measured and not account_is_logged(rows):
        return None
    families = sorted(measured, key=lambda name: name != family)
    drawn = {name: measured[name] for name in families[:FAMILIES]}
    bars = bar_panels(rows)
    return FlowSection(
        families=list(drawn),
        areas=area_panels(drawn),
        area_caption=area_caption(flow, drawn) if drawn else "",
        arrows=_arrows(flow, list(drawn)),
        arrow_caption=arrow_caption(drawn) if drawn else "",
        bars=bars,
        bar_caption=bar_caption(accounted),
        shares=flow_tables(flow) if flow else [],
        shares_note=NOTE,
        masses=mass_tables(measured),
        account=_account_tables(rows),
        not_drawn=not_drawn_words(families[FAMILIES:]),
    )


def _arrows(flow: Flow, families: Sequence[str]) -> dict[str, dict[str, ArrowPanel]]:
    panels: dict[str, dict[str, ArrowPanel]] = {}
    for arm, runs in flow.items():
        scored = families_of(runs)
        for family in families:
            if family not in scored:
                continue
            panel = arrow_panel(arm, family, runs)
            row = panels.setdefault(arm, {})
            row[family] = panel
    return panels


def mass_tables(measured: Trajectories) -> list[Table]:
    """Masses at every point, a table per family.

    Args:
        measured: Family -> arm -> trajectory.
    """
    heads = ("arm", "generated tokens", *[SHORT[kind] for kind in CLASSES])
    tables = []
    for family, arms in measured.items():
        rows: list[Sequence[str]] = []
        for arm, trajectory in arms.items():
            rows += _mass_rows(arm, trajectory)
        tables.append(Table(f"{family}: mass by class", heads, rows))
    return tables


def _mass_rows(arm: str, trajectory: Trajectory) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = []
    for i, tokens in enumerate(trajectory.tokens):
        cells = [CANNOT] * len(CLASSES)
        if trajectory.shown[i]:
            masses = trajectory.masses[i]
            cells = [f"{masses[kind]:z.4f}" for kind in CLASSES]
        spent = f"{tokens:,.0f}"
        rows.append((arm, spent, *cells))
    return rows


def _account_tables(rows: Rows) -> list[Table]:
    heads = ("arm", "term", *PHASES)
    tables = []
    for kind in SHOWN:
        lines: list[Sequence[str]] = []
        for arm, terms in term_means(rows, kind).items():
            for term, phases in terms.items():
                cells = []
                for value in phases:
                    words = ""
                    if value is not None:
                        words = f"{value:+.3g}"
                    cells.append(words)
                lines.append((arm, TERMS[term], *cells))
        if lines:
            caption = f"{SHORT[kind]}: change of log-mass per accounted update, in nats"
            tables.append(Table(caption, heads, lines, "llrrr"))
    return tables
