"""The critiques of one step as rows for a tracker, from the run's table of rollouts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from critique_rl.config.schema import TrackingConfig

COLUMNS = (
    "group",
    "role",
    "attempt",
    "question",
    "family",
    "text",
    "outcome",
    "critic",
    "critique",
    "critique_status",
    "critique_reason",
    "chosen",
)
"""Columns of the table of rollouts that are read."""
SHOWN = (
    "step",
    "family",
    "question",
    "attempt",
    "outcome",
    "critic",
    "critique",
    "status",
    "refinement",
    "refinement_outcome",
)
"""Columns that a tracker shows."""


def read_critiques(path: Path, step: int, limits: TrackingConfig) -> list[dict[str, Any]]:
    """Rows for a tracker.

    Args:
        path: The table of rollouts of the step and this rank.
        step: Its number.
        limits: How many rows, and how long a text may be.

    Returns:
        Rows with the columns `SHOWN`; [] where no table was written, as in a step that trains on an
        earlier generation.
    """
    if not path.is_file():
        return []
    rows = pq.read_table(path, columns=list(COLUMNS)).to_pylist()
    return critique_rows(rows, step, limits)


def critique_rows(
    rows: Sequence[Mapping[str, Any]], step: int, limits: TrackingConfig
) -> list[dict[str, Any]]:
    """The rollouts that a critique was asked for, each with its last refinement.

    Every group has a row before any has a second one, and within a group refined rollouts come
    first: the failures of one question are often alike.

    Args:
        rows: Of the table of rollouts, in its order.
        step: Their step.
        limits: How many rows, and how long a text may be.
    """
    refinements = _last_refinements(rows)
    shown = []
    for i in _spread(rows, refinements)[: limits.critiques]:
        row = rows[i]
        refinement = refinements.get(i, {})
        texts = {
            "question": row["question"],
            "attempt": row["text"],
            "critique": row["critique"],
            "refinement": refinement.get("text", ""),
        }
        cut = {name: _cut(text, limits.characters) for name, text in texts.items()}
        values = {
            "step": step,
            "family": row["family"],
            "outcome": row["outcome"],
            "critic": row["critic"],
            "status": _status(row),
            "refinement_outcome": refinement.get("outcome", ""),
            **cut,
        }
        shown.append({name: values[name] for name in SHOWN})
    return shown


def _spread(
    rows: Sequence[Mapping[str, Any]], refinements: Mapping[int, Mapping[str, Any]]
) -> list[int]:
    """Rows of the criticised rollouts, group after group in turn."""
    criticised = []
    for i, row in enumerate(rows):
        if row["role"] == "rollout" and row["critique_status"]:
            criticised.append(i)
    criticised.sort(key=lambda i: i not in refinements)
    ranks: dict[int, int] = {}
    before: Counter[int] = Counter()
    for i in criticised:
        group = rows[i]["group"]
        ranks[i] = before[group]
        before[group] += 1
    return sorted(criticised, key=lambda i: (ranks[i], rows[i]["group"]))


def _last_refinements(rows: Sequence[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    """Row of a rollout -> the row that fills its reserved place, or else its last refinement."""
    first_of: dict[int, int] = {}
    refinements: dict[int, Mapping[str, Any]] = {}
    for i, row in enumerate(rows):
        if row["role"] != "candidate":
            continue
        # A later turn refines the candidate before it, so the chain leads back to the rollout.
        refined = row["attempt"]
        first = first_of.get(refined, refined)
        first_of[i] = first
        earlier = refinements.get(first)
        if earlier is None or not earlier["chosen"]:
            refinements[first] = row
    return refinements


def _status(row: Mapping[str, Any]) -> str:
    if row["critique_reason"]:
        return f"{row['critique_status']}: {row['critique_reason']}"
    return str(row["critique_status"])


def _cut(text: str, characters: int) -> str:
    if len(text) <= characters:
        return text
    left_out = len(text) - characters
    return f"{text[:characters]} ... ({left_out} characters left out)"
