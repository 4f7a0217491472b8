"""The checkpoint that a run goes on from, and its files brought back to that step.

Files of later steps go: these steps are taken again, and each must be there once.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME

from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import (
    DELETE,
    jsonl_line,
    read_json,
    readable_rows,
    without_nan,
    write_text,
)
from critique_rl.config.run_folder import RunFolder
from critique_rl.config.run_identity import RunIdentity, table_identity
from critique_rl.config.terminal import say
from critique_rl.trainer.checkpoint import (
    newest_whole,
    remove_unsealed,
    set_aside,
    set_files_aside,
    step_of,
)

Row = dict[str, Any]
"""A row of metrics.jsonl."""
STEP = re.compile(r"(?:step|completions_)(\d+)")
"""Begins the name of a table of one step."""


def whole_checkpoint(folder: RunFolder, identity: RunIdentity | None = None) -> Path | None:
    """The newest whole checkpoint of a run; None where no checkpoint was ever finished.

    Half-written ones are deleted. Newer ones that are damaged, or of another run, are set aside, as
    are files in their place. All of this is said.

    Args:
        folder: The run's folder.
        identity: The run; None where nobody knows it.

    Raises:
        ConfigError: Every checkpoint is damaged.
    """
    for path in remove_unsealed(folder.checkpoints):
        say(f"{path}: it was not finished, and is deleted")
    for path in set_files_aside(folder.checkpoints):
        say(f"{path}: a file lay in place of a checkpoint, and is now named so")
    checkpoint, damaged = newest_whole(folder.checkpoints, identity)
    if damaged and checkpoint is None:
        parts = []
        for path, words in damaged.items():
            parts.append(f"{path.name}: {words}")
        faults = "; ".join(parts)
        raise ConfigError(
            f"{folder.path}: no checkpoint is whole ({faults}); put back a copy, or remove "
            f"{folder.checkpoints}, and the same command starts the run over"
        )
    for path, fault in damaged.items():
        aside = set_aside(path)
        say(
            f"{path.name} is damaged ({fault}) and now named {aside.name}: "
            f"the run goes on from {checkpoint.name if checkpoint else 'its start'}"
        )
    return checkpoint


def bring_back(folder: RunFolder, checkpoint: Path | None) -> float:
    """Bring metrics and tables back to the checkpoint's step; the seconds trained until there."""
    step = 0
    if checkpoint is not None:
        step = step_of(checkpoint)
        say(f"continuing from step {step}")
    for place in (folder.rollouts, folder.checkpoints / "completions"):
        _delete_later(place, step)
    if checkpoint is None and not folder.metrics.exists():
        return 0.0
    rows = write_metrics(folder, folder, step, checkpoint)
    if rows:
        return float(rows[-1]["seconds"])
    return 0.0


def check_tables(folder: RunFolder, checkpoint: Path | None, identity: RunIdentity) -> None:
    """Refuse tables of another run among those of steps that are not taken again.

    Raises:
        ConfigError: The first of them.
    """
    if checkpoint is None:
        return
    for path in sorted(folder.rollouts.glob("*.parquet")):
        match = STEP.match(path.name)
        if not match or int(match[1]) > step_of(checkpoint):
            continue
        words = identity.fault(table_identity(path))
        if words:
            raise ConfigError(
                f"{path}: {words}; put back this run's table, or move the other away: "
                "the report then shows nothing of that step"
            )


def _delete_later(place: Path, step: int) -> None:
    """Delete the tables of steps after `step`."""
    for path in place.glob("*.parquet"):
        match = STEP.match(path.name)
        if match and int(match[1]) > step:
            path.unlink()


def write_metrics(
    source: RunFolder, target: RunFolder, step: int, checkpoint: Path | None
) -> list[Row]:
    """Write the metrics of `source` up to `step` as those of `target`, which may be the same run.

    A checkpoint holds all rows until its step, but for the time that they took. So damaged rows are
    taken from there.

    Returns:
        The rows written, one per step.
    """
    rows, damaged = readable_rows(source.metrics)
    logged = {row["step"]: row for row in rows if _is_row(row) and row["step"] <= step}
    kept = {row["step"]: row for row in _history(checkpoint)}
    repaired = {number for number, row in kept.items() if not _is_same(logged.get(number), row)}
    seconds = 0.0
    written = []
    for number in sorted({*logged, *kept}):
        row = logged.get(number, {})
        seconds = _seconds(row, seconds)
        values = row
        if number in repaired:
            values = kept[number]
        written.append({**values, "step": number, "seconds": seconds})
    if repaired or damaged:
        lost = f"{len(damaged)} damaged lines, " if damaged else ""
        say(f"{source.metrics}: {lost}{len(repaired)} rows are written again from the checkpoint")
    ordered = [{"step": row["step"], "seconds": row["seconds"], **row} for row in written]
    write_text(target.metrics, "".join(map(jsonl_line, ordered)))
    return ordered


def _is_row(row: Row) -> bool:
    step = row.get("step")
    return isinstance(step, int) and not isinstance(step, bool) and step > 0


def _history(checkpoint: Path | None) -> list[Row]:
    """The rows that a checkpoint keeps: those of training steps, without values that are None."""
    if checkpoint is None:
        return []
    state = read_json(checkpoint / TRAINER_STATE_NAME, DELETE)
    rows: Sequence[Any] = state.get("log_history") or []
    known = []
    for row in rows:
        is_step = _is_row(row) and ("loss" in row or "reward" in row)
        if is_step:
            known.append({key: value for key, value in row.items() if value is not None})
    return known


def _is_same(row: Row | None, kept: Row) -> bool:
    if row is None:
        return False
    logged = {key: value for key, value in row.items() if key != "seconds"}
    return _plain(logged) == _plain(kept)


def _plain(row: Row) -> str:
    return json.dumps(without_nan(row), sort_keys=True)


def _seconds(row: Row, before: float) -> float:
    seconds = row.get("seconds")
    if isinstance(seconds, int | float) and not isinstance(seconds, bool):
        return max(before, float(seconds))
    return before


def delete_best(folder: RunFolder) -> None:
    """Delete the best policy so far, which may be of a step that is not taken again alike."""
    folder.best.unlink(missing_ok=True)
    if folder.best_model.is_dir():
        shutil.rmtree(folder.best_model)
