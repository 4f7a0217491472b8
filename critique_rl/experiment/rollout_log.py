"""Rollouts of one generation as a parquet table: every attempt, verdict, critique, candidate and
advantage, written before training on them. The columns are described in `config.run_folder`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from critique_rl.config.run_folder import RunFolder
from critique_rl.config.run_identity import KEY, RunIdentity
from critique_rl.trainer.rollout.generation import Generation
from critique_rl.types import Attempt, Critique


@dataclass(frozen=True)
class _Entry:
    """One scored text of the generation."""

    group: int
    number: int
    """Its number among all scored texts."""
    role: str
    """rollout, expert or candidate."""
    attempt: Attempt
    refines: int = -1
    """Row of the attempt that a candidate refines."""
    turn: int = 0
    """Turn of a candidate; 0 for others."""
    critique: Critique | None = None
    chosen: bool = False


def write_rollouts(
    folder: RunFolder,
    step: int,
    rank: int,
    batch: Generation,
    advantages: list[float],
    identity: RunIdentity | None = None,
) -> None:
    """Write one generation batch of one rank.

    Args:
        folder: The run's folder.
        step: The optimizer step that trains on these rollouts first.
        rank: The rank whose batch this is.
        batch: The generation as text.
        advantages: One per row of the batch, in its order, before weights and the split into terms.
        identity: The run, which the table's metadata then name.
    """
    folder.rollouts.mkdir(parents=True, exist_ok=True)
    path = folder.rollouts / f"step{step:05d}-rank{rank}.parquet"
    # Renamed when complete: a killed process leaves no half table under a table's name.
    temporary = path.with_suffix(".partial")
    table = pa.Table.from_pylist(rollout_rows(step, batch, advantages))
    if identity is not None:
        table = table.replace_schema_metadata({KEY: json.dumps(identity.to_json())})
    pq.write_table(table, temporary)
    temporary.replace(path)


def rollout_rows(step: int, batch: Generation, advantages: list[float]) -> list[dict[str, Any]]:
    """Rows of the table: rollouts in order, plain samples of reserved rows, then candidates.

    Candidates that fill no row of the batch have the advantage NaN.
    """
    advantage_by_number = dict(zip(batch.order, advantages, strict=True))
    rows = []
    for entry in _entries(batch):
        row: dict[str, Any] = {
            "step": step,
            "group": entry.group,
            "role": entry.role,
            "attempt": entry.refines,
            "turn": entry.turn,
        }
        row |= _attempt_columns(entry.attempt)
        row |= _critique_columns(entry.critique)
        row["reward"] = batch.values[entry.number]
        row["advantage"] = advantage_by_number.get(entry.number, float("nan"))
        row["chosen"] = entry.chosen
        rows.append(row)
    return rows


def _entries(batch: Generation) -> list[_Entry]:
    size = batch.group_rollouts
    entries = []
    for i, attempt in enumerate(batch.attempts):
        critique = batch.critiques.get(i)
        entries.append(_Entry(i // size, i, "rollout", attempt, critique=critique))
    for group, number, role, attempt in batch.plain:
        entries.append(_Entry(group, number, role, attempt, chosen=role == "expert"))
    # Of each chain the row that its next refinement refines; they come turn by turn.
    last_rows: dict[int, int] = {}
    for i, number, refinement in batch.refinements:
        first = refinement.attempt
        entry = _Entry(
            group=i // size,
            number=number,
            role="candidate",
            attempt=Attempt(first.question, refinement.text, refinement.verdict, first.row),
            refines=last_rows.get(i, i),
            turn=refinement.turn,
            critique=batch.turn_critiques.get(number),
            chosen=refinement.chosen,
        )
        last_rows[i] = len(entries)
        entries.append(entry)
    return entries


def _attempt_columns(attempt: Attempt) -> dict[str, Any]:
    answer = attempt.verdict.answer
    if answer is not None:
        answer = _writable(answer)
    return {
        "question": _writable(attempt.question),
        "family": str(attempt.row.get("family", "")),
        "text": _writable(attempt.text),
        "outcome": attempt.verdict.outcome,
        "answer": answer,
    }


def _critique_columns(critique: Critique | None) -> dict[str, Any]:
    # Columns have a type each, so a row without a critique holds empty texts, not null.
    if critique is None:
        columns = dict.fromkeys(("critic", "critique", "critique_status", "critique_reason"), "")
        return {**columns, "leaked": False}
    return {
        "critic": critique.critic,
        "critique": _writable(critique.text),
        "critique_status": critique.status,
        "critique_reason": _writable(critique.reason),
        "leaked": critique.leaked,
    }


def _writable(text: str) -> str:
    # A server's JSON may hold half surrogates, which no file takes.
    return text.encode("utf-8", "replace").decode()
