"""The table of `critique-rl flow`: per family and arm, what became of the base's wrong answers."""

from __future__ import annotations

import math

from critique_rl.analysis.flow.classes import CLASSES
from critique_rl.analysis.flow.series import FEWEST_EFFECTIVE, Flow, Series, smallest_sample
from critique_rl.analysis.flow.shares import GAINED, LEAST_FREED, FreedMass, freed_mass
from critique_rl.analysis.table import Table
from critique_rl.intervals import Interval

HEADS = ("arm", "freed", "to right", "near miss", "other wrong", "rest", "log10 p(right)")
CANNOT = "cannot show"


def flow_tables(flow: Flow) -> list[Table]:
    """One table per family, with 95 % intervals over seeds and problems.

    Args:
        flow: Series of masses, from `read_flow`.
    """
    tables = []
    for family in dict.fromkeys(_any_series(flow).families.values()):
        tables.append(_family_table(flow, family))
    return tables


def _any_series(flow: Flow) -> Series:
    runs = next(iter(flow.values()))
    return next(iter(runs.values()))


def _family_table(flow: Flow, family: str) -> Table:
    series = _any_series(flow)
    before = series.points[0].means(series.families, family)
    words = ", ".join(f"{kind} {before[kind]:.3f}" for kind in CLASSES)
    caption = (
        f"{family}: mass taken from the base's own wrong answers, and the share of it that went "
        f"to each class. Before training: {words}."
    )
    rows = []
    for arm, runs in flow.items():
        if smallest_sample(runs, family) < FEWEST_EFFECTIVE:
            rows.append((arm, *[CANNOT] * (len(HEADS) - 1)))
        else:
            rows.append(_row(arm, freed_mass(runs, family)))
    return Table(caption, HEADS, rows)


def _row(arm: str, masses: FreedMass) -> tuple[str, ...]:
    cells = [arm, _cell(masses.freed)]
    for kind in GAINED:
        if masses.shares:
            cells.append(_cell(masses.shares[kind]))
        else:
            # Signed: without enough freed mass the change itself is shown.
            cells.append(f"({masses.gained[kind].mean:+.3f})")
    logs = ""
    if masses.log10_right is not None:
        before, after = masses.log10_right
        logs = f"{before:.1f} -> {after:.1f}"
    return (*cells, logs)


def _cell(interval: Interval) -> str:
    if math.isnan(interval.low):
        return f"{interval.mean:.3f}"
    return f"{interval.mean:.3f}\n[{interval.low:.2f}, {interval.high:.2f}]"


NOTE = (
    f"In brackets: the change of mass itself, where a seed freed less than {LEAST_FREED}. "
    "log10 p(right) is a mean over problems, before and after."
)
