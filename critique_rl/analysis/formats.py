"""Numbers as text: intervals, signs, short amounts, and the metrics that fit a table."""

from __future__ import annotations

from collections.abc import Sequence

from critique_rl.analysis.comparison import Comparison, Cost

MEASURES = {
    "generated_tokens": "generated tokens",
    "total_tokens": "tokens in all",
    "flops": "FLOPs",
    "usd": "USD",
}
"""Measures by which runs may have spent alike, in the order in which they are tried."""
ALIKE = 1.05
"""The largest spending may be this times the smallest. Budgets end at a step's end, so arms whose
steps differ in size overshoot by different amounts."""
SHOWN_METRICS = 4
"""Metrics of a table: more do not fit 80 columns beside the cost."""


def spent_alike(costs: Sequence[Cost]) -> str | None:
    """The first of `MEASURES` by which all arms spent the same, up to `ALIKE`.

    Returns:
        A key of `MEASURES`; None where the arms were not compared at equal cost.
    """
    for measure in MEASURES:
        spent = [getattr(cost, measure) for cost in costs]
        highest = max(spent, default=0)
        if 0 < highest <= ALIKE * min(spent):
            return measure
    return None


def bracket(ci95: Sequence[float] | None) -> str:
    """An interval as [low, high] with two decimals; None is "[no interval]"."""
    if ci95 is None:
        return "[no interval]"
    low, high = ci95
    # `z` turns -0.00 into 0.00.
    return f"[{low:z.2f}, {high:z.2f}]"


def signed(number: float) -> str:
    """Two decimals with a sign, but no -0.00."""
    return f"{number:+z.2f}"


def two_decimals(number: float) -> str:
    """Two decimals without a sign, such as 0.05."""
    return f"{number:.2f}"


def short(number: float) -> str:
    """Three digits at most: 150123 -> 150k, 1500000 -> 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        # From here on three digits round up to the next letter: 999,500 is 1M, and not 1e+03k.
        if number >= 0.9995 * size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def plural(count: int, noun: str) -> str:
    """The count and the noun, in the plural above 1."""
    if count > 1:
        return f"{count} {noun}s"
    return f"{count} {noun}"


def shown_metrics(comparison: Comparison, most: int = SHOWN_METRICS) -> list[str]:
    """The primary metric and the families' pass@1: what fits a table.

    Args:
        comparison: all of its metrics are in compare.json.
        most: metrics in all.
    """
    primary = comparison.primary
    # The primary metric stands first already, and no family is called "all".
    left_out = (primary, "pass@1/all")
    names = {primary: None}
    for arm in comparison.arms.values():
        for name in arm.metrics:
            if name.startswith("pass@1/") and name not in left_out:
                names[name] = None
    return list(names)[:most]
