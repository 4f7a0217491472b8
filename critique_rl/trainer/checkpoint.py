"""Checkpoints that are whole or not there, and a run folder that one process writes at a time.

transformers writes a checkpoint's files one by one, and by default deletes the older checkpoint
before ours is complete. Here everything is flushed to disk first, then `critique_rl.json` is
written: with what transformers does not keep (token counts, metrics not logged yet, states of
callbacks), and as the sign that the checkpoint is whole. Checkpoints without it are never picked.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from critique_rl.config.run_folder import write_text

STATE = "critique_rl.json"
PREFIX = "checkpoint-"


def seal(checkpoint: Path, state: Mapping[str, Any]) -> None:
    """Flush a written checkpoint to disk, then mark it whole by writing its state."""
    for path in [*checkpoint.rglob("*"), checkpoint]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    # NaN is allowed: a metric not logged yet may be one.
    write_text(checkpoint / STATE, json.dumps(state))


def read_state(checkpoint: Path) -> dict[str, Any]:
    """What `seal` wrote; {} for a checkpoint of stock transformers."""
    path = checkpoint / STATE
    return json.loads(path.read_text()) if path.exists() else {}


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(PREFIX))


def sealed_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a folder, by step."""
    found = [
        path
        for path in folder.glob(f"{PREFIX}*")
        if path.name.removeprefix(PREFIX).isdigit() and (path / STATE).exists()
    ]
    return sorted(found, key=step_of)


def last_sealed(folder: Path) -> Path | None:
    """The newest whole checkpoint."""
    return (sealed_checkpoints(folder) or [None])[-1]


def remove_unsealed(folder: Path) -> None:
    """Delete what a killed process left half-written, or half-deleted."""
    for path in folder.glob(f"{PREFIX}*"):
        if path not in sealed_checkpoints(folder):
            shutil.rmtree(path)


def rotate(folder: Path, limit: int | None, kept: Collection[Path] = ()) -> None:
    """Keep the newest `limit` whole checkpoints (None or 0: all) and those `kept`. A checkpoint
    loses its mark first: half-deleted, it is not picked.
    """
    others = [path for path in sealed_checkpoints(folder) if path not in kept]
    for path in others[: -limit if limit else 0]:
        (path / STATE).unlink()
        shutil.rmtree(path)


def branch(checkpoint: Path, folder: Path) -> None:
    """Copy a whole checkpoint into another run's folder; its mark comes last, so that a half copy
    is none.
    """
    target = folder / checkpoint.name
    shutil.copytree(checkpoint, target, ignore=shutil.ignore_patterns(STATE), dirs_exist_ok=True)
    seal(target, read_state(checkpoint))
