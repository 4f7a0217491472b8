"""The account of terms: how far each term of the loss moved a class's log-mass, by phase of a run.

Runs log `flow/<class>/<term>` with `flow: {account: true}`: the first-order change of the class's
log-mass in one update, in nats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from critique_rl.analysis.flow.classes import CLASSES
from critique_rl.analysis.learning_curves import Rows, Step

PHASES = ("first third", "second third", "last third")
TERMS = {
    "positive": "right attempts up",
    "negative": "wrong attempts down",
    "refine": "refinements up",
    "distill_before": "teacher, before the fault",
    "distill_at": "teacher, at the fault",
    "distill_after": "teacher, after the fault",
    "own": "answers of its own",
    "kl": "KL to the reference",
    "entropy": "entropy bonus",
    "momentum": "earlier gradients",
    "decay": "weight decay",
    "rounding": "rounding, the remainder",
}
"""Term -> its name on pages, in the order of bars."""
PhaseMeans = tuple[float | None, ...]
"""A mean per phase; None where no update of the phase was accounted."""


def term_means(rows: Rows, kind: str) -> dict[str, dict[str, PhaseMeans]]:
    """Arm -> term -> mean change of a class's log-mass per accounted update.

    Args:
        rows: metrics.jsonl by arm and seed.
        kind: One of `CLASSES`.

    Returns:
        A mean over updates of each seed, and then over seeds. Arms without an account are left out.
    """
    means = {}
    for arm, seeds in rows.items():
        terms = {}
        for term in TERMS:
            phases = _phase_means(list(seeds.values()), f"flow/{kind}/{term}")
            if phases != (None,) * len(PHASES):
                terms[term] = phases
        if terms:
            means[arm] = terms
    return means


def account_is_logged(rows: Rows) -> bool:
    """Whether any run has an account of terms."""
    return any(term_means(rows, kind) for kind in CLASSES)


def _phase_means(runs: Sequence[Sequence[Step]], key: str) -> PhaseMeans:
    by_phase: list[list[float]] = [[] for _ in PHASES]
    for logged in runs:
        for phase, values in _values_by_phase(logged, key).items():
            mean = sum(values) / len(values)
            by_phase[phase].append(mean)
    means: list[float | None] = []
    for seed_means in by_phase:
        if seed_means:
            means.append(sum(seed_means) / len(seed_means))
        else:
            means.append(None)
    return tuple(means)


def _values_by_phase(logged: Sequence[Step], key: str) -> Mapping[int, list[float]]:
    """Phase -> logged values of one run; steps count the phases, as tokens per step vary little."""
    values: dict[int, list[float]] = {}
    last = max((row.get("step") or 0 for row in logged), default=0)
    for row in logged:
        value = row.get(key)
        step = row.get("step")
        if value is not None and step:
            phase = (step - 1) * len(PHASES) // last
            values.setdefault(phase, []).append(value)
    return values
