"""Runs in trackers: names that no other run has, arms as groups, metrics by step, critiques.

transformers' callbacks of `trl.report_to` log the metrics. Added here: trackio's groups and steps,
which its callback does not set, and a table of critiques every few steps.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, TrackioCallback
from transformers.integrations.integration_utils import rewrite_logs

from critique_rl.config.run_folder import PipelineFolder, RunFolder
from critique_rl.config.run_identity import RunIdentity
from critique_rl.config.schema import RunConfig, TrackingConfig
from critique_rl.experiment.live.critique_table import SHOWN, read_critiques
from critique_rl.trainer.critique_grpo import CritiqueGRPOTrainer

TITLE = "critiques"
"""Name of the table in a tracker."""
DEFAULT_PROJECT = "huggingface"
"""transformers' name of a project where the user gives none."""
TABLES = ("trackio", "wandb", "tensorboard")
"""Trackers that show the table; others show the metrics."""


@dataclass(frozen=True)
class TrackerNames:
    """What a run is called in trackers."""

    project: str
    """The pipeline."""
    group: str
    """The arm; of a trial the arm and its value."""
    run: str
    """Arm, seed and the start of the run's id. trackio takes two runs of one name for one, so a
    name without the id could be continued by a run of another folder.
    """
    tensorboard: Path
    """Folder of the run's files for TensorBoard."""


def tracker_names(folder: RunFolder, identity: RunIdentity) -> TrackerNames:
    """The names of a run of a pipeline.

    Args:
        folder: The run's folder, which lies in that of its arm.
        identity: Its arm, seed and id.
    """
    group = folder.path.parent.name
    pipeline = PipelineFolder(folder.path.parent.parent)
    if pipeline.path.name == pipeline.sweep.path.name:
        pipeline = PipelineFolder(pipeline.path.parent)
    seed = folder.path.name
    return TrackerNames(
        project=pipeline.path.resolve().name,
        group=group,
        run=f"{group}-{seed}-{identity.run_id[:6]}",
        tensorboard=pipeline.tensorboard / group / seed,
    )


def name_run(trainer: CritiqueGRPOTrainer, config: RunConfig, names: TrackerNames) -> None:
    """Give a run its names in trackers, where the user has not.

    Args:
        trainer: Its arguments get the names.
        config: The run, whose `trl` section may have names.
        names: Of the run.
    """
    arguments: Any = trainer.args
    if arguments.project == DEFAULT_PROJECT and "project" not in config.trl:
        arguments.project = names.project
    if not arguments.run_name:
        arguments.run_name = names.run
    # Variables that the user has set stay.
    os.environ.setdefault("WANDB_PROJECT", names.project)
    os.environ.setdefault("WANDB_RUN_GROUP", names.group)
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(names.tensorboard))
    for callback in trainer.callback_handler.callbacks:
        # It read the variable when the trainer was built.
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(names.tensorboard)


def add_trackers(
    trainer: CritiqueGRPOTrainer, config: RunConfig, folder: RunFolder, identity: RunIdentity
) -> None:
    """Name the run in its trackers, and have them show arms as groups and critiques.

    Nothing happens where `trl.report_to` is none.
    """
    trackers = list(trainer.args.report_to or [])
    if not trackers:
        return
    names = tracker_names(folder, identity)
    name_run(trainer, config, names)
    if "trackio" in trackers:
        trainer.remove_callback(TrackioCallback)
        trainer.add_callback(ArmTrackio(names.group))
    shown = [name for name in trackers if name in TABLES]
    if shown and config.tracking.critiques_every:
        trainer.add_callback(CritiqueTables(trainer, shown, folder.rollouts, config.tracking))


class ArmTrackio(TrackioCallback):
    """transformers' callback of trackio, with the arm as the run's group and the optimizer step.

    Without a step trackio counts calls: a continued run would go on after the steps that were lost,
    and a table of critiques would be a step of its own.

    Args:
        group: The arm.
    """

    def __init__(self, group: str):
        super().__init__()
        self.group = group

    def setup(self, args, state, model, **kwargs):
        """Open the run, and put it into its group."""
        super().setup(args, state, model, **kwargs)
        if state.is_world_process_zero:
            import trackio

            # The argument `group` of `trackio.init` ends here too.
            trackio.config["_Group"] = self.group

    def on_log(self, args, state, control, model=None, logs=None, **kwargs):
        """Log a step's metrics under the number of the step."""
        if state.is_world_process_zero and logs:
            import trackio

            trackio.log(rewrite_logs(logs), step=state.global_step)


class CritiqueTables(TrainerCallback):
    """Shows a table of critiques every few steps.

    Args:
        trainer: Holds TensorBoard's callback, whose writer is used.
        trackers: Names out of `TABLES`.
        rollouts: Folder of the run's tables of rollouts.
        limits: How often, how many rows, and how long a text may be.
    """

    def __init__(
        self,
        trainer: CritiqueGRPOTrainer,
        trackers: list[str],
        rollouts: Path,
        limits: TrackingConfig,
    ):
        self.trainer = trainer
        self.trackers = trackers
        self.rollouts = rollouts
        self.limits = limits

    def on_step_end(self, args, state, control, **kwargs):
        """Send the table of the step, where one is due and a critique was asked for."""
        step = state.global_step
        is_due = step == 1 or step % self.limits.critiques_every == 0
        if not (is_due and state.is_world_process_zero):
            return
        path = self.rollouts / f"step{step:05d}-rank0.parquet"
        rows = read_critiques(path, step, self.limits)
        if rows:
            for tracker in self.trackers:
                self._send(tracker, rows, step)

    def _send(self, tracker: str, rows: list[dict[str, Any]], step: int) -> None:
        if tracker == "tensorboard":
            self._write_tensorboard(rows, step)
            return
        import pandas as pd

        frame = pd.DataFrame(rows, columns=list(SHOWN))
        if tracker == "trackio":
            import trackio

            trackio.log({TITLE: trackio.Table(dataframe=frame)}, step=step)
        if tracker == "wandb":
            import wandb

            table = wandb.Table(dataframe=frame)
            # By this metric transformers has wandb order all others.
            wandb.log({TITLE: table, "train/global_step": step})

    def _write_tensorboard(self, rows: list[dict[str, Any]], step: int) -> None:
        for callback in self.trainer.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
                callback.tb_writer.add_text(TITLE, markdown_table(rows), step)


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table, which TensorBoard's page of texts draws."""
    lines = [_markdown_row(SHOWN), _markdown_row(["---"] * len(SHOWN))]
    for row in rows:
        lines.append(_markdown_row([row[name] for name in SHOWN]))
    return "\n".join(lines)


def _markdown_row(cells: Any) -> str:
    texts = []
    for cell in cells:
        text = str(cell).replace("|", "\\|")
        texts.append(" ".join(text.split()))
    return f"| {' | '.join(texts)} |"
