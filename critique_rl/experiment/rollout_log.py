"""Rollouts of one generation as a parquet table (columns in `runs`): every attempt, verdict,
critique, candidate and advantage, before training on them.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from critique_rl.config.run_folder import RunFolder
from critique_rl.trainer.rollout.generation import Generation
from critique_rl.types import Attempt, Critique


def write_rollouts(
    folder: RunFolder, step: int, rank: int, batch: Generation, advantages: list[float]
) -> None:
    """Write one generation batch of one rank; `advantages` are in the batch's order, before credit
    was shared out.
    """
    folder.rollouts.mkdir(parents=True, exist_ok=True)
    path = folder.rollouts / f"step{step:05d}-rank{rank}.parquet"
    temporary = path.with_suffix(".partial")
    pq.write_table(pa.Table.from_pylist(rollout_rows(step, batch, advantages)), temporary)
    temporary.replace(path)


def rollout_rows(step: int, batch: Generation, advantages: list[float]) -> list[dict[str, Any]]:
    """Rows of the table: rollouts in order, plain samples of reserved rows, then candidates."""
    by_number = dict(zip(batch.order, advantages, strict=True))
    size = batch.group_rollouts
    numbered = [
        (i // size, i, -1, "rollout", attempt, batch.critiques.get(i), False)
        for i, attempt in enumerate(batch.attempts)
    ]
    numbered += [
        (group, number, -1, role, attempt, None, role == "expert")
        for group, number, role, attempt in batch.plain
    ]
    for i, number, refinement in batch.refinements:
        second = Attempt(
            refinement.attempt.question, refinement.text, refinement.verdict, refinement.attempt.row
        )
        numbered.append((i // size, number, i, "candidate", second, None, refinement.chosen))
    return [
        {
            "step": step,
            "group": group,
            "role": role,
            "attempt": refines,
            **_words(attempt, critique),
            "reward": batch.values[number],
            "advantage": by_number.get(number, float("nan")),
            "chosen": chosen,
        }
        for group, number, refines, role, attempt, critique, chosen in numbered
    ]


def _writable(text: str) -> str:
    """Text without half surrogates, which a server's JSON may hold and no file takes."""
    return text.encode("utf-8", "replace").decode()


def _words(attempt: Attempt, critique: Critique | None) -> dict[str, Any]:
    verdict, critique = attempt.verdict, critique or Critique("", "", "")
    return {
        "question": _writable(attempt.question),
        "family": str(attempt.row.get("family", "")),
        "text": _writable(attempt.text),
        "outcome": verdict.outcome,
        "answer": None if verdict.answer is None else _writable(verdict.answer),
        "critic": critique.critic,
        "critique": _writable(critique.text),
        "critique_status": critique.status,
        "critique_reason": _writable(critique.reason),
        "leaked": critique.leaked,
    }
