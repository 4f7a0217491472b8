"""The table of `critique-rl flow`: per family and arm, what became of the base's wrong answers."""

from __future__ import annotations

import math
from collections.abc import Mapping

from critique_rl.analysis.flow.classes import CLASSES, WORDS
from critique_rl.analysis.flow.series import (
    FEWEST_EFFECTIVE,
    Flow,
    Series,
    families_of,
    smallest_sample,
)
from critique_rl.analysis.flow.shares import GAINED, LEAST_FREED, FreedMass, freed_mass
from critique_rl.analysis.table import Table
from critique_rl.intervals import Interval

HEADS = ("arm", "freed", "to right", "near miss", "other wrong", "rest", "log10 p(right)")
CANNOT = "cannot show"
Runs = Mapping[int, Series]
"""Seed -> series of one arm."""


def flow_tables(flow: Flow) -> list[Table]:
    """One table per family, with 95 % intervals over seeds and problems.

    Args:
        flow: Series of masses, from `read_flow`.
    """
    families: dict[str, dict[str, Runs]] = {}
    for arm, runs in flow.items():
        # Arms may have tasks of their own, and so other families.
        for family in families_of(runs):
            arms = families.setdefault(family, {})
            arms[arm] = runs
    return [_family_table(family, arms) for family, arms in families.items()]


def _family_table(family: str, arms: Mapping[str, Runs]) -> Table:
    caption = (
        f"{family}: mass taken from the base's own wrong answers, and the share of it that went "
        f"to each class. Before training: {_base_words(family, arms)}."
    )
    rows = []
    for arm, runs in arms.items():
        if smallest_sample(runs, family) < FEWEST_EFFECTIVE:
            cells = [CANNOT] * (len(HEADS) - 1)
            rows.append((arm, *cells))
        else:
            rows.append(_row(arm, freed_mass(runs, family)))
    return Table(caption, HEADS, rows)


def _base_words(family: str, arms: Mapping[str, Runs]) -> str:
    """Masses of each policy before training, with the arms where there are several."""
    arms_by_words: dict[str, list[str]] = {}
    for arm, runs in arms.items():
        series = next(iter(runs.values()))
        before = series.points[0].means(series.families, family)
        masses = [f"{WORDS[kind]} {before[kind]:.3f}" for kind in CLASSES]
        words = ", ".join(masses)
        alike = arms_by_words.setdefault(words, [])
        alike.append(arm)
    if len(arms_by_words) == 1:
        return words
    parts = []
    for words, names in arms_by_words.items():
        parts.append(f"{words} ({', '.join(names)})")
    return "; ".join(parts)


def _row(arm: str, masses: FreedMass) -> tuple[str, ...]:
    cells = [arm, _cell(masses.freed)]
    for kind in GAINED:
        if masses.shares:
            cells.append(_cell(masses.shares[kind]))
        else:
            # Signed: without enough freed mass the change itself is shown.
            cells.append(f"({masses.gained[kind].mean:+z.3f})")
    logs = ""
    if masses.log10_right is not None:
        before, after = masses.log10_right
        logs = f"{before:z.1f} -> {after:z.1f}"
    return (*cells, logs)


def _cell(interval: Interval) -> str:
    if math.isnan(interval.low):
        return f"{interval.mean:z.3f}"
    ends = f"[{interval.low:z.2f}, {interval.high:z.2f}]"
    return f"{interval.mean:z.3f}\n{ends}"


NOTE = (
    f"In brackets: the change of mass itself, where a seed freed less than {LEAST_FREED}. "
    "log10 p(right) is a mean over problems, before and after."
)
