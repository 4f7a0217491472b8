"""numbers.csv: every number of a comparison in long form, a row per number."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, fields, replace
from typing import Any

from critique_rl.analysis.comparison import (
    ArmSummary,
    Comparison,
    Difference,
    Ends,
    MetricSummary,
    SecondTemplate,
)
from critique_rl.analysis.flow.series import (
    FEWEST_EFFECTIVE,
    Flow,
    Point,
    Series,
    families_of,
    smallest_sample,
)
from critique_rl.analysis.flow.shares import FreedMass, freed_mass
from critique_rl.analysis.records import to_json

COMPARISON_KINDS = (
    "base",
    "arms",
    "comparisons",
    "pairs",
    "boundary",
    "second",
    "missing",
    "incomparable",
)
"""Keys of a comparison that have rows of their own kind."""
ARM_KINDS = ("metrics", "cost")
"""Keys of an arm that have rows of their own kind."""
FORMULA = re.compile(
    "[\\s\ufeff\u200b-\u200f\u2060\x00-\x1f]*[=+@\\-\uff1d\uff0b\uff20\uff0d\u2212]|[\t\r]"
)
"""How formulas begin, in wide characters too, behind spaces and what nobody sees."""
NUMBER = re.compile(
    r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?%?|[+-]?(inf|infinity|nan)", re.IGNORECASE | re.ASCII
)
"""Texts that begin like formulas and are numbers."""
Numbers = Iterator["Number"]


@dataclass(frozen=True)
class Number:
    """One number of the comparison with its interval; None where a column says nothing of it."""

    kind: str
    """base, arm, cost, difference (from the control), pair (of any two arms), boundary, second or
    second difference (second template), missing, incomparable, other. "smallest difference" and the
    like: what the pair could show (`power.smallest_of`). "pair together": intervals that hold at
    once. "... to decide": the seeds that would. seeds: those that took off. mass and freed mass:
    `flow_numbers`."""
    arm: str = ""
    control: str = ""
    metric: str = ""
    """The metric, or the path of a key that has no columns."""
    seed: str = ""
    """"" for a number over all seeds."""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    problems: float | None = None
    note: str = ""


def numbers_csv(comparison: Comparison, flow: Flow | None = None) -> str:
    """All numbers of the comparison, and of masses where they were scored, in full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(item.name for item in fields(Number))
    # csv writes None as an empty cell.
    rows = [*numbers(comparison), *flow_numbers(flow or {})]
    for number in rows:
        writer.writerow([safe_cell(value) for value in astuple(number)])
    return out.getvalue()


def safe_cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: such a text gets an apostrophe before it.

    Args:
        value: numbers, and texts that are numbers such as -0.05, 1e-3 or -inf, stay as they are.
    """
    if isinstance(value, str) and FORMULA.match(value) and not NUMBER.fullmatch(value.strip()):
        return f"'{value}"
    return value


def numbers(comparison: Comparison) -> Numbers:
    """All numbers of the comparison.

    Returns:
        Rows by kind. Keys that have no columns come last, by their path, those included that other
        programs added.
    """
    base = comparison.base or {}
    boundaries = comparison.boundary or {}
    for metric, value in base.items():
        if value is not None:
            yield Number("base", metric=metric, value=value)
    for arm, summary in comparison.arms.items():
        yield from _arm_numbers(arm, summary)
    for difference in comparison.comparisons:
        yield from _difference_numbers("difference", difference)
    for pair in comparison.pairs:
        yield from _difference_numbers("pair", pair)
    for arm, boundary in boundaries.items():
        for key, value in to_json(boundary).items():
            yield Number("boundary", arm=arm, metric=key, value=value)
    if comparison.second:
        yield from _second_numbers(comparison.second)
    yield from _left_out_numbers(comparison)
    others = _without(to_json(comparison), COMPARISON_KINDS)
    for path, value in _leaves(others):
        yield Number("other", metric=path, value=value)


def flow_numbers(flow: Flow) -> Numbers:
    """Masses of every run's points, and what became of the freed mass; those that can be shown.

    Returns:
        Metrics are class/family for masses, and freed/family, gained/class/family and
        share/class/family.
    """
    for arm, runs in flow.items():
        for seed, series in runs.items():
            for point in series.points:
                yield from _mass_numbers(arm, str(seed), series, point)
        for family in families_of(runs):
            if smallest_sample(runs, family) >= FEWEST_EFFECTIVE:
                yield from _freed_numbers(arm, family, freed_mass(runs, family))


def _mass_numbers(arm: str, seed: str, series: Series, point: Point) -> Numbers:
    for family in families_of({0: series}):
        if point.smallest_sample(series.families, family) < FEWEST_EFFECTIVE:
            continue
        masses = point.means(series.families, family)
        problems = list(series.families.values()).count(family)
        number = Number("mass", arm=arm, seed=seed, problems=problems)
        note = f"step {point.step}, {point.generated_tokens} generated tokens"
        for kind, mass in masses.items():
            yield replace(number, metric=f"{kind}/{family}", value=mass, note=note)


def _freed_numbers(arm: str, family: str, masses: FreedMass) -> Numbers:
    intervals = {"freed": masses.freed}
    for kind, interval in masses.gained.items():
        intervals[f"gained/{kind}"] = interval
    for kind, interval in masses.shares.items():
        intervals[f"share/{kind}"] = interval
    for name, interval in intervals.items():
        number = Number("freed mass", arm=arm, metric=f"{name}/{family}", value=interval.mean)
        # A single seed and problem have no interval.
        if not math.isnan(interval.low):
            number = replace(number, low=interval.low, high=interval.high)
        yield number


def _left_out_numbers(comparison: Comparison) -> Numbers:
    """Runs and pairs that entered no difference, with the reason."""
    for run in comparison.missing:
        yield Number("missing", arm=run.arm, seed=str(run.seed), note="not evaluated")
    for item in comparison.incomparable:
        number = Number("incomparable", arm=item.arm, note=item.reason)
        if item.seed is not None:
            number = replace(number, seed=str(item.seed))
        yield number


def _arm_numbers(arm: str, summary: ArmSummary) -> Numbers:
    yield from _metric_numbers("arm", arm, summary.metrics)
    for name, value in to_json(summary.cost).items():
        yield Number("cost", arm=arm, metric=name, value=value, note="mean of a run")
    others = _without(to_json(summary), ARM_KINDS)
    for path, value in _leaves(others):
        yield Number("arm", arm=arm, metric=path, value=value)


def _metric_numbers(kind: str, arm: str, metrics: Mapping[str, MetricSummary]) -> Numbers:
    for metric, summary in metrics.items():
        number = Number(kind, arm=arm, metric=metric, problems=summary.problems)
        low, high = _ends(summary.ci95)
        yield replace(number, value=summary.mean, low=low, high=high)
        for seed, value in summary.per_seed.items():
            yield replace(number, seed=seed, value=value)
        if summary.kinds is not None:
            for path, value in _leaves(to_json(summary.kinds)):
                yield replace(number, kind="seeds", value=value, note=path)


def _difference_numbers(kind: str, pair: Difference) -> Numbers:
    note = f"{len(pair.seeds)} seeds"
    if pair.p is not None:
        note += f", sign-flip p {pair.p!r}"
    number = Number(
        kind=kind, arm=pair.arm, control=pair.control, metric=pair.metric, problems=pair.problems
    )
    low, high = _ends(pair.ci95)
    yield replace(number, value=pair.difference, low=low, high=high, note=note)
    for seed, value in pair.per_seed.items():
        yield replace(number, seed=seed, value=value)
    if pair.smallest is not None:
        yield replace(number, kind=f"smallest {kind}", value=pair.smallest)
    if pair.together is not None:
        low, high = pair.together
        value = pair.difference
        yield replace(number, kind=f"{kind} together", value=value, low=low, high=high)
    if pair.seeds_to_decide is not None:
        yield replace(number, kind=f"{kind} to decide", value=pair.seeds_to_decide)


def _second_numbers(second: SecondTemplate) -> Numbers:
    for arm, summary in second.arms.items():
        yield from _metric_numbers("second", arm, summary.metrics)
        for path, value in _leaves(summary.extra):
            yield Number("second", arm=arm, metric=path, value=value)
    for pair in second.comparisons:
        yield from _difference_numbers("second difference", pair)


def _ends(ci95: Ends | None) -> tuple[float | None, float | None]:
    return ci95 or (None, None)


def _without(data: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key not in keys}


def _leaves(data: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """(path, number) of every number in nested objects and arrays, such as "bins.0.mean"."""
    if isinstance(data, list):
        data = dict(enumerate(data))
    if isinstance(data, Mapping):
        for key, value in data.items():
            inner_path = f"{path}.{key}".lstrip(".")
            yield from _leaves(value, inner_path)
    elif isinstance(data, bool):
        # Python counts it among the ints.
        return
    elif isinstance(data, int | float):
        yield path, data
