"""Columns that TRL's tables of completions get beside its own: verdict, role, critique, refinement.

| column     | of a rollout                                       | of a refinement         |
|------------|----------------------------------------------------|-------------------------|
| verdict    | its outcome                                        | its outcome             |
| role       | rollout (cut: "rollout, truncated") or expert      | refinement              |
| critique   | the critic's words, or "(<status>: <reason>)"      | those that it follows   |
| refinement | what came of the critique, a right text before     | "" (the completion is   |
|            | others; "" if nothing                              | the refinement)         |
"""

from __future__ import annotations

from critique_rl.trainer.rollout.generation import Generation, is_right
from critique_rl.types import Critique, Refinement


def completion_columns(batch: Generation) -> dict[str, list[str]]:
    """The columns of one rank's batch, one text per row, in its order."""
    refinements = {number: refinement for _, number, refinement in batch.refinements}
    best = _best_refinements(batch)
    plain = {sample.number: sample for sample in batch.plain}
    columns: dict[str, list[str]] = {"verdict": [], "role": [], "critique": [], "refinement": []}
    for row, number in enumerate(batch.order):
        critique: Critique | None = None
        second = ""
        if number in refinements:
            role = "refinement"
            critique = refinements[number].critique
        elif number in plain:
            role = _role(plain[number].role, plain[number].attempt.truncated)
        else:
            role = _role("rollout", batch.attempts[number].truncated)
            critique = batch.critiques.get(number)
            if number in best:
                second = best[number].text
        columns["verdict"].append(batch.verdicts[row].outcome)
        columns["role"].append(role)
        columns["critique"].append(_show_critique(critique))
        columns["refinement"].append(second)
    return columns


def _best_refinements(batch: Generation) -> dict[int, Refinement]:
    """Index of an attempt -> its refinement, a right one before others."""
    best: dict[int, Refinement] = {}
    for i, _, refinement in batch.refinements:
        earlier = best.get(i)
        if earlier is None or (is_right(refinement.verdict) and not is_right(earlier.verdict)):
            best[i] = refinement
    return best


def _role(role: str, truncated: bool) -> str:
    if truncated:
        return f"{role}, truncated"
    return role


def _show_critique(critique: Critique | None) -> str:
    if critique is None:
        return ""
    if critique.status != "ok":
        return f"({critique.status}: {critique.reason})"
    # A server's JSON may hold half surrogates, which no file takes.
    return critique.text.encode("utf-8", "replace").decode()
