"""Mean masses over what was generated, per family and arm: the values of stacked areas.

They come from scored snapshots (`flow.json`), or, in arms that have none, from the masses that runs
logged while they trained (`flow/<family>/<class>` in metrics.jsonl).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from critique_rl.analysis.flow.classes import CLASSES
from critique_rl.analysis.flow.series import FEWEST_EFFECTIVE, Flow, Series, families_of
from critique_rl.analysis.learning_curves import SPENT, Rows, Step


@dataclass(frozen=True)
class Trajectory:
    """Masses of one arm in one family, a mean over problems and seeds."""

    tokens: tuple[float, ...]
    """Generated until each point, ascending."""
    masses: tuple[Mapping[str, float], ...]
    """Class -> mass, at each point."""
    shown: tuple[bool, ...]
    """Whether every seed has enough effective samples at the point."""
    problems: int | None
    """None where the log does not say."""
    seeds: int
    live: bool
    """Whether the masses were logged while training, and not scored afterwards."""


Trajectories = dict[str, dict[str, Trajectory]]
"""Family -> arm -> trajectory."""


@dataclass(frozen=True)
class _Curve:
    """One seed's masses."""

    tokens: np.ndarray
    """(T,)"""
    masses: np.ndarray
    """(T, C)"""
    shown: np.ndarray
    """(T,), of bool."""


def trajectories(flow: Flow, rows: Rows) -> Trajectories:
    """The trajectories of all arms that have masses.

    Args:
        flow: Scored series; they come first.
        rows: metrics.jsonl by arm and seed, for the arms that `flow` lacks.
    """
    result: Trajectories = {}
    arms = dict.fromkeys([*rows, *flow])
    for arm in arms:
        if arm in flow:
            arm_families = _scored(flow[arm])
        else:
            arm_families = _logged(rows[arm])
        for family, trajectory in arm_families.items():
            arms_of_family = result.setdefault(family, {})
            arms_of_family[arm] = trajectory
    return result


def live_families(seeds: Mapping[int, Sequence[Step]]) -> list[str]:
    """The families whose masses an arm's runs logged, in the order of the log."""
    keys: dict[str, None] = {}
    for logged in seeds.values():
        for row in logged:
            keys |= dict.fromkeys(row)
    families: dict[str, None] = {}
    for key in keys:
        head, _, kind = key.rpartition("/")
        if head.startswith("flow/") and kind in CLASSES:
            family = head.removeprefix("flow/")
            families[family] = None
    return list(families)


def _scored(runs: Mapping[int, Series]) -> dict[str, Trajectory]:
    """Family -> trajectory of one arm's snapshots."""
    first = next(iter(runs.values()))
    families = list(first.families.values())
    result = {}
    for family in families_of(runs):
        curves = []
        for series in runs.values():
            curve = _scored_curve(series, family)
            curves.append(curve)
        problems = families.count(family)
        result[family] = _mean_trajectory(curves, problems)
    return result


def _logged(seeds: Mapping[int, Sequence[Step]]) -> dict[str, Trajectory]:
    """Family -> trajectory of what one arm's runs logged."""
    result = {}
    for family in live_families(seeds):
        curves = []
        for logged in seeds.values():
            curve = _live_curve(logged, family)
            if len(curve.tokens):
                curves.append(curve)
        if curves:
            result[family] = _mean_trajectory(curves, None)
    return result


def _mean_trajectory(curves: Sequence[_Curve], problems: int | None) -> Trajectory:
    """The mean over seeds; of logged masses where the number of problems is None."""
    mean = _mean(curves)
    masses = []
    for row in mean.masses.tolist():
        by_class = dict(zip(CLASSES, row, strict=True))
        masses.append(by_class)
    return Trajectory(
        tokens=tuple(mean.tokens.tolist()),
        masses=tuple(masses),
        shown=tuple(mean.shown.tolist()),
        problems=problems,
        seeds=len(curves),
        live=problems is None,
    )


def _scored_curve(series: Series, family: str) -> _Curve:
    tokens = []
    masses = []
    shown = []
    for point in series.points:
        means = point.means(series.families, family)
        size = point.smallest_sample(series.families, family)
        tokens.append(float(point.generated_tokens))
        masses.append([means[kind] for kind in CLASSES])
        shown.append(size >= FEWEST_EFFECTIVE)
    return _Curve(np.array(tokens), np.array(masses), np.array(shown))


def _live_curve(logged: Sequence[Step], family: str) -> _Curve:
    tokens = []
    masses = []
    for row in logged:
        values = [row.get(f"flow/{family}/{kind}") for kind in CLASSES]
        spent = row.get(SPENT)
        if spent is not None and None not in values:
            tokens.append(spent)
            masses.append(values)
    shown = np.ones(len(tokens), dtype=bool)
    return _Curve(np.array(tokens, dtype=float), np.array(masses), shown)


def _mean(curves: Sequence[_Curve]) -> _Curve:
    """Mean over seeds, point by point.

    Runs with more points than the shortest one are read between their points, where its points are.
    """
    shortest = min(curves, key=_length)
    tokens = []
    masses = []
    shown = []
    for curve in curves:
        aligned = curve
        if _length(curve) > _length(shortest):
            aligned = _read_at(curve, shortest.tokens)
        tokens.append(aligned.tokens)
        masses.append(aligned.masses)
        shown.append(aligned.shown)
    return _Curve(
        tokens=np.mean(tokens, axis=0), masses=np.mean(masses, axis=0), shown=np.all(shown, axis=0)
    )


def _length(curve: _Curve) -> int:
    return len(curve.tokens)


def _read_at(curve: _Curve, tokens: np.ndarray) -> _Curve:
    """A curve's masses at `tokens` (T,), between its points and at its ends."""
    columns = []
    for column in curve.masses.T:
        masses = np.interp(tokens, curve.tokens, column)
        columns.append(masses)
    hidden = np.interp(tokens, curve.tokens, ~curve.shown)
    # Between a point that is shown and one that is not, nothing is shown.
    return _Curve(tokens, np.stack(columns, axis=1), hidden == 0)
