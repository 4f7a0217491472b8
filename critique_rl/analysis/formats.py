"""Numbers as text: intervals, signs, short amounts, and the metrics that fit a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MEASURES = {
    "generated_tokens": "generated tokens",
    "total_tokens": "tokens in all",
    "flops": "FLOPs",
    "usd": "USD",
}
"""What runs may have been given alike, in the order in which it is looked for."""


def spent_alike(costs: Sequence[Mapping[str, float]]) -> str | None:
    """The first of `MEASURES` of which all arms spent the same within 5%; None where they were not
    compared at equal cost.
    """
    spent = {name: [cost.get(name, 0.0) for cost in costs] for name in MEASURES}
    return next(
        (
            name
            for name, values in spent.items()
            if values and 0 < max(values) <= 1.05 * min(values)
        ),
        None,
    )


def bracket(ci95: Sequence[float] | None) -> str:
    return "[no interval]" if ci95 is None else f"[{ci95[0]:z.2f}, {ci95[1]:z.2f}]"


def signed(number: float) -> str:
    """Two decimals with a sign, but no -0.00."""
    return f"{number:+z.2f}"


def short(number: float) -> str:
    """150123 -> 150k, 1500000 -> 1.5M: three digits at most."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def shown_metrics(comparison: Mapping[str, Any], most: int = 4) -> list[str]:
    """The primary metric and the families' pass@1, `most` in all: what fits a table. The rest is in
    compare.json.
    """
    names = dict.fromkeys(name for arm in comparison["arms"].values() for name in arm["metrics"])
    first = [
        name
        for name in names
        if name.startswith("pass@1/") and name not in ("pass@1/all", comparison["primary"])
    ]
    return [comparison["primary"], *first][:most]
