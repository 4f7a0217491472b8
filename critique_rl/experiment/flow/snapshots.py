"""Snapshots of the weights on the way, at even shares of the budget (`flow.snapshots`)."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from critique_rl.config.durable_files import DamagedFile, read_json, write_json
from critique_rl.config.folder_checksums import first_fault, folder_checksums
from critique_rl.config.run_folder import RunFolder
from critique_rl.config.run_identity import KEY
from critique_rl.config.schema import RunConfig
from critique_rl.experiment.same_config import stored_identity
from critique_rl.trainer.critique_grpo import CritiqueGRPOTrainer

RECORD = "snapshot.json"
"""In the folder of a snapshot, written last: step, generated tokens, point of the series, checksums
of the files, and whose run it is.
"""
DELETE = "delete the folder, and the series goes without this point"


@dataclass(frozen=True)
class Snapshot:
    """Saved weights of a run."""

    path: Path
    step: int
    generated_tokens: int


def read_snapshots(folder: RunFolder, seed: int) -> list[Snapshot]:
    """The complete snapshots of a run, by step.

    Args:
        folder: The run.
        seed: Its seed.

    Raises:
        DamagedFile: One is of another run, or not what was saved.
    """
    snapshots = []
    identity = stored_identity(folder, seed)
    for path in sorted(folder.snapshots.glob("step*")):
        record = read_json(path / RECORD)
        if not record:
            continue
        words = identity.fault(record.get(KEY))
        # Snapshots of earlier versions have no checksums.
        if not words and "files" in record:
            words = first_fault(path, record["files"], (RECORD,))
        if words:
            raise DamagedFile(path, words, DELETE)
        snapshots.append(Snapshot(path, record["step"], record["generated_tokens"]))
    return snapshots


class SnapshotCallback(TrainerCallback):
    """Saves the weights when a share of the budget is reached for the first time.

    A continued run passes its last share again, and saves the same weights again.
    """

    def __init__(self, config: RunConfig, folder: RunFolder, trainer: CritiqueGRPOTrainer):
        self.config = config
        self.folder = folder
        self.trainer = trainer
        self.points = config.flow.snapshots if config.flow else 0

    def on_step_end(self, args, state, control, **kwargs):
        """Save a snapshot where this step was the first over one of the shares."""
        if self.points < 3:
            return control
        share = self._share(state)
        due = int(share * (self.points - 1))
        if due > self._passed(state.global_step) and share < 1:
            self._save(state.global_step, due)
        return control

    def _share(self, state: Any) -> float:
        """The share of the budget that is spent."""
        limit = self.config.budget.limit
        if limit is None:
            return state.global_step / max(1, state.max_steps)
        kind, amount = limit
        return self.trainer.costs()[kind] / amount

    def _passed(self, step: int) -> int:
        """The last point that has a snapshot of an earlier step."""
        points = [0]
        for path in self.folder.snapshots.glob("step*"):
            record = read_json(path / RECORD)
            if record and record["step"] < step:
                points.append(record["point"])
        return max(points)

    def _save(self, step: int, point: int) -> None:
        path = self.folder.snapshots / f"step{step:05d}"
        # Weights of a run that was stopped while it wrote them.
        if self.trainer.accelerator.is_main_process:
            shutil.rmtree(path, ignore_errors=True)
        self.trainer.accelerator.wait_for_everyone()
        # On every rank: a sharded policy is saved by all of them.
        self.trainer.save_model(str(path))
        if self.trainer.accelerator.is_main_process:
            record = {
                "step": step,
                "generated_tokens": int(self.trainer.generated_tokens),
                "point": point,
                "files": folder_checksums(path),
            }
            if self.trainer.identity is not None:
                record[KEY] = self.trainer.identity.to_json()
            write_json(path / RECORD, record)
