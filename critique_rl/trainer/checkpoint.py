"""Sealed checkpoints: a checkpoint is complete, or it is ignored.

transformers writes a checkpoint's files one by one. Here they are flushed to disk first; then
`critique_rl.json` is written. It holds the state that transformers does not keep (token counts,
metrics not logged yet, states of callbacks), and it seals the checkpoint: one without it is never
picked. Left out: the lock on a run folder, which is the experiment's.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from critique_rl.config.durable_files import write_text

STATE = "critique_rl.json"
PREFIX = "checkpoint-"
GENERATION = "generation-rank{}.pt"
"""One rank's generation in progress, in checkpoints that lie inside a generation."""


def seal(checkpoint: Path, state: Mapping[str, Any]) -> None:
    """Flush a written checkpoint to disk, then seal it by writing `state`."""
    # The folder too: its entries are data of their own, and a power cut may lose them.
    for path in [*checkpoint.rglob("*"), checkpoint]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    # NaN is allowed: a metric that is not logged yet may be one.
    write_text(checkpoint / STATE, json.dumps(state))


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The state that `seal` wrote; {} for a checkpoint of stock transformers."""
    path = checkpoint / STATE
    if path.exists():
        return json.loads(path.read_text())
    return {}


def step_of(checkpoint: Path) -> int:
    """The optimizer step after which the checkpoint was written."""
    return int(checkpoint.name.removeprefix(PREFIX))


def sealed_checkpoints(folder: Path) -> list[Path]:
    """The sealed checkpoints of a folder, by step."""
    sealed = []
    for path in folder.glob(f"{PREFIX}*"):
        is_step = path.name.removeprefix(PREFIX).isdigit()
        if is_step and (path / STATE).exists():
            sealed.append(path)
    return sorted(sealed, key=step_of)


def last_sealed(folder: Path) -> Path | None:
    """The newest sealed checkpoint, or None."""
    sealed = sealed_checkpoints(folder)
    if sealed:
        return sealed[-1]
    return None


def remove_unsealed(folder: Path) -> None:
    """Delete checkpoints that a killed process left half-written or half-deleted."""
    sealed = sealed_checkpoints(folder)
    for path in folder.glob(f"{PREFIX}*"):
        if path not in sealed:
            shutil.rmtree(path)


def rotate(folder: Path, limit: int | None, kept: Collection[Path] = ()) -> None:
    """Delete all sealed checkpoints but the newest `limit` (None or 0: all stay) and those `kept`.

    A kept checkpoint does not count against the limit.
    """
    if not limit:
        return
    candidates = [path for path in sealed_checkpoints(folder) if path not in kept]
    for path in candidates[:-limit]:
        # The seal goes first: a checkpoint that is half deleted is never picked.
        (path / STATE).unlink()
        shutil.rmtree(path)


def copy_checkpoint(checkpoint: Path, folder: Path) -> None:
    """Copy a sealed checkpoint into another run's folder, without a generation in progress.

    The other run may make its batches in another way.

    The seal is written last, so an interrupted copy is ignored, and the same call completes it.
    """
    target = folder / checkpoint.name
    left_out = shutil.ignore_patterns(STATE, GENERATION.format("*"))
    shutil.copytree(checkpoint, target, ignore=left_out, dirs_exist_ok=True)
    seal(target, read_state(checkpoint))
