"""Counts of an arm's critiques, and of the refinements that read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from critique_rl.analysis.learning_curves import STATUSES, Rows, Step


@dataclass(frozen=True)
class CritiqueCounts:
    """Counts of one arm, all seeds and steps together."""

    arm: str
    ok: int
    """Critiques written."""
    cached: int
    """Critiques answered before, at no cost."""
    failed: int
    skipped: int
    leaked: int
    """Critiques that give the answer away."""
    candidates: int
    """Refinements sampled."""
    right: int
    """Refinements that were right."""
    reasons: str
    """Why critiques failed or were skipped, with counts, in words."""

    @property
    def asked(self) -> int:
        """Critiques asked for."""
        return self.ok + self.cached + self.failed + self.skipped

    @property
    def shares(self) -> tuple[float | None, float | None, float | None]:
        """(rescue, leak, failure) rate, 0 to 1; None where the denominator is 0."""
        return (
            _share(self.right, self.candidates),
            _share(self.leaked, self.ok + self.cached),
            _share(self.failed, self.asked),
        )


def _share(part: int, total: int) -> float | None:
    return part / total if total else None


def critique_counts(rows: Rows) -> list[CritiqueCounts]:
    """Counts of every arm that asked for a critique or sampled a refinement.

    Args:
        rows: metrics.jsonl by arm and seed; counts are logged with each generation.
    """
    all_counts = []
    for arm, seeds in rows.items():
        logged = [row for seed_rows in seeds.values() for row in seed_rows]
        counts = _count_arm(arm, logged)
        if counts.asked or counts.candidates:
            all_counts.append(counts)
    return all_counts


def _count_arm(arm: str, logged: Sequence[Step]) -> CritiqueCounts:
    right = 0.0
    for row in logged:
        # The log has the rate of right refinements, and not their count.
        rate = row.get("refine/rescue_rate") or 0
        candidates = row.get("refine/candidates") or 0
        right += rate * candidates
    statuses = {status: _total(logged, f"critique/{status}") for status in STATUSES}
    return CritiqueCounts(
        arm=arm,
        ok=statuses["ok"],
        cached=statuses["cached"],
        failed=statuses["failed"],
        skipped=statuses["skipped"],
        leaked=_total(logged, "critique/leaked"),
        candidates=_total(logged, "refine/candidates"),
        right=round(right),
        reasons=_reasons(logged),
    )


def _total(logged: Sequence[Step], key: str) -> int:
    return round(sum(row.get(key) or 0 for row in logged))


def _reasons(logged: Sequence[Step]) -> str:
    keys = dict.fromkeys(key for row in logged for key in row)
    reasons = []
    for key in keys:
        if key.startswith(("critique/failed/", "critique/skipped/")):
            # Metric names hold no spaces, and readers no slashes: "failed: timeout".
            words = key.removeprefix("critique/").replace("/", ": ", 1)
            reasons.append(f"{words} {_total(logged, key)}")
    return ", ".join(reasons)
