"""numbers.csv: every number of a comparison in long form, a row per number."""

from __future__ import annotations

import csv
import io
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


@dataclass(frozen=True)
class Number:
    """One number of the comparison with its interval; None where a column says nothing of it."""

    kind: str
    """base, arm, cost, difference (from the control), pair (of any two arms), boundary, second or
    second difference (second template), missing, incomparable, other."""
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


def numbers_csv(comparison: Comparison) -> str:
    """All numbers of the comparison, in full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(item.name for item in fields(Number))
    # csv writes None as an empty cell.
    writer.writerows(astuple(number) for number in numbers(comparison))
    return out.getvalue()


def numbers(comparison: Comparison) -> Iterator[Number]:
    """Rows by kind; keys that have no columns come last, by their path."""
    for metric, value in (comparison.base or {}).items():
        if value is not None:
            yield Number("base", metric=metric, value=value)
    for arm, summary in comparison.arms.items():
        yield from _arm_numbers(arm, summary)
    for difference in comparison.comparisons:
        yield from _difference_numbers("difference", difference)
    for pair in comparison.pairs:
        yield from _difference_numbers("pair", pair)
    for arm, boundary in (comparison.boundary or {}).items():
        for key, value in to_json(boundary).items():
            yield Number("boundary", arm=arm, metric=key, value=value)
    if comparison.second:
        yield from _second_numbers(comparison.second)
    yield from _left_out_numbers(comparison)
    for path, value in _leaves(_without(to_json(comparison), COMPARISON_KINDS)):
        yield Number("other", metric=path, value=value)


def _left_out_numbers(comparison: Comparison) -> Iterator[Number]:
    """Runs and pairs that entered no difference, with the reason."""
    for run in comparison.missing:
        yield Number("missing", arm=run.arm, seed=str(run.seed), note="not evaluated")
    for item in comparison.incomparable:
        seed = "" if item.seed is None else str(item.seed)
        yield Number("incomparable", arm=item.arm, seed=seed, note=item.reason)


def _arm_numbers(arm: str, summary: ArmSummary) -> Iterator[Number]:
    yield from _metric_numbers("arm", arm, summary.metrics)
    for name, value in to_json(summary.cost).items():
        yield Number("cost", arm=arm, metric=name, value=value, note="mean of a run")
    for path, value in _leaves(_without(to_json(summary), ARM_KINDS)):
        yield Number("arm", arm=arm, metric=path, value=value)


def _metric_numbers(kind: str, arm: str, metrics: Mapping[str, MetricSummary]) -> Iterator[Number]:
    for metric, summary in metrics.items():
        number = Number(kind, arm=arm, metric=metric, problems=summary.problems)
        low, high = _ends(summary.ci95)
        yield replace(number, value=summary.mean, low=low, high=high)
        for seed, value in summary.per_seed.items():
            yield replace(number, seed=seed, value=value)


def _difference_numbers(kind: str, pair: Difference) -> Iterator[Number]:
    note = f"{len(pair.seeds)} seeds"
    if pair.p is not None:
        note += f", sign-flip p {pair.p!r}"
    number = Number(
        kind, arm=pair.arm, control=pair.control, metric=pair.metric, problems=pair.problems
    )
    low, high = _ends(pair.ci95)
    yield replace(number, value=pair.difference, low=low, high=high, note=note)
    for seed, value in pair.per_seed.items():
        yield replace(number, seed=seed, value=value)


def _second_numbers(second: SecondTemplate) -> Iterator[Number]:
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
    if isinstance(data, Mapping):
        for key, value in data.items():
            yield from _leaves(value, f"{path}.{key}".lstrip("."))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _leaves(value, f"{path}.{index}".lstrip("."))
    # In Python a bool is an int, but no number of a comparison.
    elif isinstance(data, int | float) and not isinstance(data, bool):
        yield path, data
