"""A batch whose rollouts are sampled and not trained yet, in memory and in a checkpoint.

Its file is JSON: a row of the dataset, or a verdict, may hold what a tensor file does not load.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from critique_rl.trainer.checkpoint import IN_FLIGHT
from critique_rl.trainer.rollout.critiques import Selection
from critique_rl.trainer.rollout.generation import make_attempts
from critique_rl.trainer.rollout.phases import FirstPhase, without_reserved
from critique_rl.trainer.rollout.sampled import Row, Sampled
from critique_rl.trainer.rollout.scoring import Judged
from critique_rl.types import Verdict


@dataclass(frozen=True)
class BatchInFlight:
    """A batch whose rollouts are sampled and judged, and not trained yet."""

    rows: list[Row]
    """The dataset's row of each prompt."""
    first: FirstPhase
    """The rollouts."""
    logps: list[list[float]] | None
    """Log-probs of their tokens under the policy that sampled them; None with vLLM, whose own
    log-probs TRL's correction reads.
    """
    columns: dict[str, list[Any]]
    """Columns that reward functions logged for them."""
    step: int
    """Optimizer steps that the policy had taken."""
    selection: Selection | None = None
    """Which of them the critic is asked about, once that is known."""


@dataclass(frozen=True)
class BatchShape:
    """Numbers that a batch shares with the run that takes it up."""

    processes: int
    """Ranks."""
    group_size: int
    """Rows per group."""
    group_rollouts: int
    """Of these the rollouts of phase 1."""


def refuse_rows(rows: Sequence[Row]) -> None:
    """Refuse rows that a checkpoint cannot hold.

    Raises:
        ValueError: a column holds something else than text, numbers, and lists of them.
    """
    for row in rows:
        for name, value in row.items():
            try:
                json.dumps(value)
            except (TypeError, ValueError):
                raise ValueError(
                    f"critique_staleness: got a {type(value).__name__} in the column {name!r}, "
                    "expected text, numbers, or lists of them, which a checkpoint can hold; "
                    "drop the column, or set critique_staleness to 0"
                ) from None


def with_plain_details(first: FirstPhase) -> FirstPhase:
    """Rollouts whose verdicts have details as JSON keeps them.

    A critic then reads the same of a verdict whether or not the run was stopped in between.
    """
    verdicts = []
    for verdict in first.judged.verdicts:
        details = _plain(verdict.details)
        verdicts.append(replace(verdict, details=details))
    attempts = []
    for attempt, verdict in zip(first.attempts, verdicts, strict=True):
        attempts.append(replace(attempt, verdict=verdict))
    judged = replace(first.judged, verdicts=verdicts)
    return FirstPhase(first.sampled, judged, attempts)


def _plain(value: Any) -> Any:
    """A value as JSON gives it back: keys are text, and what is no JSON is its words."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or type(value) in (str, bool, int, float):
        return value
    return str(value)


def write_batch(batch: BatchInFlight, checkpoint: Path, rank: int, shape: BatchShape) -> None:
    """Write one rank's batch into a checkpoint."""
    first = batch.first
    verdicts = []
    for verdict in first.judged.verdicts:
        fields = asdict(verdict)
        verdicts.append(fields)
    truncated = []
    for attempt in first.attempts:
        truncated.append(attempt.truncated)
    content = {
        "shape": asdict(shape),
        "rows": batch.rows,
        "sampled": asdict(first.sampled),
        "rewards": first.judged.rewards.tolist(),
        "values": first.judged.values,
        "verdicts": verdicts,
        "truncated": truncated,
        "logps": batch.logps,
        "columns": _plain(batch.columns),
        "step": batch.step,
        "selection": _write_selection(batch.selection),
    }
    # `str`: a row's cells may be of kinds that JSON takes for others.
    text = json.dumps(content, default=str)
    (checkpoint / IN_FLIGHT.format(rank)).write_text(text, encoding="utf-8")


def read_batch(
    checkpoint: Path, rank: int, shape: BatchShape, device: torch.device
) -> BatchInFlight | None:
    """One rank's batch in a checkpoint; None where it has none of this shape."""
    path = checkpoint / IN_FLIGHT.format(rank)
    if not path.exists():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["shape"] != asdict(shape):
        return None
    rows = content["rows"]
    sampled = Sampled(**content["sampled"])
    verdicts = []
    for fields in content["verdicts"]:
        verdict = _read_verdict(fields)
        verdicts.append(verdict)
    rewards = torch.tensor(content["rewards"], device=device)
    judged = Judged(rewards, content["values"], verdicts)
    rollout_rows = without_reserved(rows, shape.group_size, shape.group_rollouts)
    attempts = make_attempts(rollout_rows, sampled.completions, verdicts, content["truncated"])
    first = FirstPhase(sampled, judged, attempts)
    selection = _read_selection(content["selection"])
    return BatchInFlight(
        rows, first, content["logps"], content["columns"], content["step"], selection
    )


def _write_selection(selection: Selection | None) -> dict[str, Any]:
    """{} of a batch that the critic was not asked about."""
    if selection is None:
        return {}
    return {
        "asked": selection.asked,
        # JSON has no keys that are numbers.
        "copies": list(selection.copies.items()),
        "due": selection.due,
        "counts": selection.counts,
    }


def _read_selection(fields: dict[str, Any]) -> Selection | None:
    if not fields:
        return None
    copies = dict(fields["copies"])
    return Selection(fields["asked"], copies, fields["due"], Counter(fields["counts"]))


def _read_verdict(fields: dict[str, Any]) -> Verdict:
    faults = []
    for start, end in fields.pop("faults"):
        faults.append((start, end))
    return Verdict(**fields, faults=tuple(faults))
