"""Which evaluations were taken alike. The others enter no comparison, and the reason is listed.

Two evaluations are comparable if they share the `evaluations.PROTOCOL` (task, split, sampling,
prompts, package versions) and at least one problem.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from critique_rl.analysis.comparison import LeftOut
from critique_rl.analysis.evaluations import BASE, ArmRuns, Evaluation, Runs


@dataclass(frozen=True)
class ComparableRuns:
    """Evaluations that were taken alike, and those that were not."""

    runs: ArmRuns
    """Arm -> its comparable evaluations; an arm without one stays, empty."""
    base: Evaluation | None
    """None where it was not evaluated, or not alike."""
    left_out: tuple[LeftOut, ...]

    @property
    def evaluations(self) -> list[Evaluation]:
        """The arms' evaluations in one list."""
        return _all_evaluations(self.runs)


def _all_evaluations(arms: ArmRuns) -> list[Evaluation]:
    evaluations: list[Evaluation] = []
    for runs in arms.values():
        evaluations += runs.values()
    return evaluations


def select_comparable(runs: ArmRuns, control: str, base: Evaluation | None) -> ComparableRuns:
    """Leave out the evaluations that differ from the control's.

    Args:
        runs: arm -> evaluations by seed; at least one in all.
        control: the arm that sets the protocol, or, where it has no evaluation, any does.
        base: the policy before training, or None.
    """
    candidates = list(runs[control].values())
    reference = _reference(candidates or _all_evaluations(runs))
    kept: dict[str, Runs] = {}
    left_out = []
    for arm, evaluations in runs.items():
        kept[arm] = {}
        for seed, evaluation in evaluations.items():
            reason = _difference(evaluation, reference)
            if reason:
                left_out.append(LeftOut(arm, seed, reason))
            else:
                kept[arm][seed] = evaluation
    if base is not None:
        reason = _difference(base, reference)
        if reason:
            left_out.append(LeftOut(BASE, None, reason))
            base = None
    return ComparableRuns(kept, base, tuple(left_out))


def _reference(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The first evaluation with the commonest protocol."""
    # Not simply the first: one odd seed of the control would throw out everybody else.
    protocols = []
    for evaluation in evaluations:
        # A protocol holds dicts, which cannot be counted as they are.
        protocols.append(json.dumps(evaluation.protocol, sort_keys=True))
    counts = Counter(protocols)
    [(commonest, _)] = counts.most_common(1)
    return evaluations[protocols.index(commonest)]


def _difference(evaluation: Evaluation, reference: Evaluation) -> str:
    """Why the two cannot be compared; "" where they can."""
    got = _flatten(evaluation.protocol)
    expected = _flatten(reference.protocol)
    differing = []
    for key in expected | got:
        value = got.get(key)
        wanted = expected.get(key)
        if value != wanted:
            differing.append(f"{key} {value} instead of {wanted}")
    shared = evaluation.problems.keys() & reference.problems.keys()
    if not differing and not shared:
        differing = ["none of its problems is among the control's"]
    if not differing:
        return ""
    words = ", ".join(differing)
    return f"evaluated with {words}: evaluate it again as the control was"


def _flatten(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """{"split": "test", "task.name": ..., "versions.trl": ...}."""
    # A difference is named by the part that differs: "versions.trl 1.15.0 instead of 1.16.0", and
    # not two lists of ten packages.
    flat: dict[str, Any] = {}
    for key, value in protocol.items():
        if isinstance(value, dict):
            for name, inner in value.items():
                flat[f"{key}.{name}"] = inner
        else:
            flat[key] = value
    return flat
