"""What became of the critiques that an arm asked for, counted.

The one source is metrics.jsonl: the trainer counts the critiques of every step, and a continued run
has each step once. A critique is *missing* if it failed or was skipped, whatever the reason: its
rollout trained on the scalar term alone. Counts of critiques that a circuit breaker or a cap kept
from being sent are among the skipped ones, and so among the missing ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from critique_rl.analysis.comparison import CritiqueCounts
from critique_rl.analysis.learning_curves import Step


def critique_counts(logged: Sequence[Step]) -> CritiqueCounts | None:
    """The counts of one arm.

    Args:
        logged: rows of metrics.jsonl of all of the arm's runs, each step of a run once.

    Returns:
        None without a row: nothing is known then.
    """
    if not logged:
        return None
    totals: Counter[str] = Counter()
    right = 0.0
    refined = 0.0
    for row in logged:
        counts = {key: value for key, value in row.items() if key.startswith("critique/")}
        totals.update({key: value for key, value in counts.items() if _is_number(value)})
        # The log has the rate of right refinements, and not their count.
        candidates = _number(row, "refine/candidates")
        right += _number(row, "refine/rescue_rate") * candidates
        refined += candidates
    totals["refine/candidates"] = round(refined)
    totals["refine/right"] = round(right)
    return count_totals(totals)


def _number(row: Step, key: str) -> float:
    """A logged number; 0 where there is none."""
    value = row.get(key)
    return value if isinstance(value, int | float) else 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def count_totals(totals: Mapping[str, float]) -> CritiqueCounts:
    """The counts in a trainer's totals.

    Args:
        totals: "critique/ok", "critique/failed", "critique/failed/timeout" and the like -> count.
    """
    cached = round(totals.get("critique/cached", 0))
    failed = round(totals.get("critique/failed", 0))
    skipped = round(totals.get("critique/skipped", 0))
    written = round(totals.get("critique/ok", 0)) + cached
    return CritiqueCounts(
        asked=written + failed + skipped,
        written=written,
        cached=cached,
        failed=failed,
        skipped=skipped,
        reasons=_reasons(totals),
        leaked=round(totals.get("critique/leaked", 0)),
        refinements=round(totals.get("refine/candidates", 0)),
        right_refinements=round(totals.get("refine/right", 0)),
    )


def _reasons(totals: Mapping[str, float]) -> dict[str, int]:
    """ "failed: timeout", "written: other_model" and the like -> count, the commonest first."""
    reasons = {}
    substitutes = round(totals.get("critique/ok/other_model", 0))
    if substitutes:
        reasons["written: other_model"] = substitutes
    for key, count in totals.items():
        if key.startswith(("critique/failed/", "critique/skipped/")):
            # Metric names hold no spaces, and readers no slashes.
            words = key.removeprefix("critique/").replace("/", ": ", 1)
            reasons[words] = round(count)
    return dict(sorted(reasons.items(), key=lambda item: -item[1]))
