"""Columns that TRL's tables of completions get beside its own: verdict, role, critique, refinement.

| column     | of a rollout                                       | of a refinement         |
|------------|----------------------------------------------------|-------------------------|
| verdict    | its outcome                                        | its outcome             |
| role       | rollout (cut: "rollout, truncated") or expert      | refinement              |
| critique   | the critic's words, or "(<status>: <reason>)"      | those that it follows   |
| refinement | what came of the critique; "" if nothing           | "" (the completion is   |
|            |                                                    | the refinement)         |

With several turns the role is "refinement, turn 2 of rollout 3", counted within the group, and the
cell of the rollout holds its chain: the text of each turn, and the words on each.
"""

from __future__ import annotations

from critique_rl.trainer.rollout.generation import Generation, NumberedRefinement
from critique_rl.types import Critique


def completion_columns(batch: Generation) -> dict[str, list[str]]:
    """The columns of one rank's batch, one text per row, in its order."""
    refinements = {refined.number: refined for refined in batch.refinements}
    chains = _chains(batch)
    has_turns = any(len(chain) > 1 for chain in chains.values())
    plain = {sample.number: sample for sample in batch.plain}
    columns: dict[str, list[str]] = {"verdict": [], "role": [], "critique": [], "refinement": []}
    for row, number in enumerate(batch.order):
        critique: Critique | None = None
        second = ""
        if number in refinements:
            refined = refinements[number]
            role = "refinement"
            if has_turns:
                role = _refinement_role(batch, refined)
            critique = refined.refinement.critique
        elif number in plain:
            role = _role(plain[number].role, plain[number].attempt.truncated)
        else:
            role = _role("rollout", batch.attempts[number].truncated)
            critique = batch.critiques.get(number)
            if number in chains:
                second = _show_chain(batch, chains[number])
        columns["verdict"].append(batch.verdicts[row].outcome)
        columns["role"].append(role)
        columns["critique"].append(_show_critique(critique))
        columns["refinement"].append(second)
    return columns


def _chains(batch: Generation) -> dict[int, list[NumberedRefinement]]:
    """Index of a rollout -> its refinements, turn by turn."""
    chains: dict[int, list[NumberedRefinement]] = {}
    for refined in batch.refinements:
        chains.setdefault(refined.attempt, []).append(refined)
    return chains


def _refinement_role(batch: Generation, refined: NumberedRefinement) -> str:
    place = refined.attempt % batch.group_rollouts
    turn = refined.refinement.turn
    return f"refinement, turn {turn} of rollout {place + 1}"


def _show_chain(batch: Generation, chain: list[NumberedRefinement]) -> str:
    """The refinement of a chain of one turn, else every turn's and the words on it."""
    critiques = batch.turn_critiques
    if len(chain) == 1 and chain[0].number not in critiques:
        return chain[0].refinement.text
    lines = []
    for _, number, refinement in chain:
        lines.append(f"[turn {refinement.turn}] {refinement.text}")
        if number in critiques:
            words = _show_critique(critiques[number])
            lines.append(f"[critique] {words}")
    return "\n".join(lines)


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
