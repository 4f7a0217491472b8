"""GRPOTrainer whose runs continue exactly, from whole checkpoints only.

transformers and TRL lose four things. TRL keeps no sampled batch, so a checkpoint waits here until
the last generation is used up. One that cannot wait holds the batch: that of a run which stops
inside a generation (`rollout.generation_in_progress`). TRL's sampler starts again at the first
epoch's order. Metrics that are not logged yet and states of callbacks are lost; here they are in
the checkpoint (`checkpoint.seal`), beside the state that a subclass adds. What cannot be continued
exactly is named in one sentence.

Training itself is unchanged: an uninterrupted run is stock GRPOTrainer's, bit for bit.
"""

from __future__ import annotations

import logging
import pickle
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import GRPOConfig, GRPOTrainer

from critique_rl.config.run_identity import KEY, RunIdentity
from critique_rl.trainer import trl_seams
from critique_rl.trainer.checkpoint import (
    DamagedCheckpoint,
    delete,
    fault,
    newest_whole,
    read_state,
    rotate,
    seal,
    sealed_checkpoints,
)
from critique_rl.trainer.rollout.generation_in_progress import (
    is_boundary,
    load_generation,
    other_schedule,
    save_generation,
)

logger = logging.getLogger(__name__)
FIXED_SCHEDULES = ("constant", "constant_with_warmup")
"""Schedules of the learning rate that know nothing of the run's end."""


class Diverged(RuntimeError):
    """Training met a loss or weights that are not finite, and stopped before it saved them."""


class ResumableGRPOTrainer(GRPOTrainer):
    """GRPOTrainer with exact continuation. Checkpoints of `kept_steps` outlive save_total_limit."""

    args: GRPOConfig

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.kept_steps: set[int] = set()
        self.identity: RunIdentity | None = None
        """The run of a pipeline that the checkpoints are of; None outside of one."""
        self.add_callback(_SaveAtBoundary(self))

    @property
    def at_boundary(self) -> bool:
        """True if every micro batch of the last generation was trained on."""
        return is_boundary(self, self.state.global_step)

    @property
    def schedules_over_steps(self) -> bool:
        """Whether the learning rate depends on the number of steps that the run is to take."""
        return self.args.lr_scheduler_type not in FIXED_SCHEDULES

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any):
        """TRL's `train`. True continues from the newest whole checkpoint of output_dir.

        Raises:
            ValueError: True, and output_dir has no whole checkpoint; or the named one is damaged.
            Diverged: weights are not finite when a checkpoint is due.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = str(self._newest_whole())
        elif resume_from_checkpoint:
            _refuse_damaged(Path(resume_from_checkpoint))
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _newest_whole(self) -> Path:
        """The newest whole checkpoint of output_dir; damaged ones that are newer are named.

        Raises:
            ValueError: there is none.
        """
        newest, damaged = newest_whole(Path(str(self.args.output_dir)))
        words = [f"{path.name}: {words}" for path, words in damaged.items()]
        if newest is None:
            faults = f" ({'; '.join(words)})" if words else ""
            raise ValueError(
                f"resume_from_checkpoint: no complete checkpoint in {self.args.output_dir}{faults};"
                " leave it out to start anew"
            )
        if words and self.is_world_process_zero():
            logger.warning("damaged (%s): going on from %s", "; ".join(words), newest.name)
        return newest

    def extra_state(self) -> dict[str, Any]:
        """State that the next process needs beside transformers' files, as JSON."""
        callbacks = self._stateful_callbacks()
        identity = {KEY: self.identity.to_json()} if self.identity is not None else {}
        return {
            **identity,
            "kept_steps": sorted(self.kept_steps),
            "metrics": dict(trl_seams.training_metrics(self)),
            "callbacks": {name: callback.state_dict() for name, callback in callbacks.items()},
        }

    def save_extra_files(self, checkpoint: Path) -> None:
        """Write a subclass's files, before the checkpoint is sealed.

        Called on every rank; only the main one may write.
        """

    def load_extra_state(self, checkpoint: Path, state: dict[str, Any]) -> None:
        """The inverse of `extra_state` and `save_extra_files`."""
        self.kept_steps |= set(state.get("kept_steps", ()))
        trl_seams.training_metrics(self).update(state.get("metrics", {}))
        stored = state.get("callbacks", {})
        for name, callback in self._stateful_callbacks().items():
            if name in stored:
                callback.load_state_dict(stored[name])

    def restore(self, checkpoint: Path) -> None:
        """Load a checkpoint's weights, step and counts, for a run that has no step left to take."""
        trl_seams.load_weights(self, checkpoint)
        self.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        self.load_extra_state(checkpoint, read_state(checkpoint))

    def _save_checkpoint(self, model, trial):
        """Save, seal and rotate.

        Raises:
            Diverged: weights are not finite; the checkpoints on disk stay.
        """
        _refuse_weights_that_are_not_finite(model, self.state.global_step)
        folder = trl_seams.checkpoints_folder(self, trial)
        checkpoint = folder / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.args.should_save:
            # Left by a run that went on from an earlier step: its seal would be of other files.
            delete(checkpoint)
        self.accelerator.wait_for_everyone()
        # transformers would delete the older checkpoint before this one is sealed.
        limit = self.args.save_total_limit
        self.args.save_total_limit = None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        self.save_extra_files(checkpoint)
        if not self.at_boundary:
            save_generation(self, checkpoint)
            # Every rank's part is there before the checkpoint is sealed.
            self.accelerator.wait_for_everyone()
        if self.args.should_save:
            seal(checkpoint, self.extra_state())
            kept = [folder / f"{PREFIX_CHECKPOINT_DIR}-{step}" for step in self.kept_steps]
            if self.state.best_model_checkpoint:
                kept.append(Path(self.state.best_model_checkpoint))
            rotate(folder, limit, kept)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        with _loading(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint):
        with _loading(checkpoint):
            self._load_optimizer_and_more(checkpoint)

    def _load_optimizer_and_more(self, checkpoint) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        self.load_extra_state(Path(checkpoint), read_state(Path(checkpoint)))
        # TRL's sampler draws a new order each epoch from one generator, and starts again at the
        # first epoch's order when a run is resumed. So the epochs that are over are drawn here.
        stored = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
        doubts = [load_generation(self, Path(checkpoint), stored.global_step)]
        if self.schedules_over_steps:
            doubts.append(other_schedule(self.args, stored))
        for doubt in doubts:
            if doubt and self.is_world_process_zero():
                logger.warning("%s: %s", checkpoint, doubt)
        for _ in range(int(stored.epoch or 0)):
            torch.randperm(self._sampler.num_samples, generator=self._sampler.generator)

    def _get_train_sampler(self, dataset=None):
        self._sampler = super()._get_train_sampler(dataset)
        return self._sampler

    def _stateful_callbacks(self) -> dict[str, Any]:
        """Callbacks with a state by class name; the second of a class is "<name>-2"."""
        named: dict[str, Any] = {}
        counts: Counter[str] = Counter()
        for callback in self.callback_handler.callbacks:
            if not hasattr(callback, "state_dict"):
                continue
            name = type(callback).__name__
            counts[name] += 1
            if counts[name] > 1:
                name = f"{name}-{counts[name]}"
            named[name] = callback
        return named


@contextmanager
def _loading(checkpoint: Any) -> Iterator[None]:
    """Name the checkpoint in errors of the libraries that load it.

    Raises:
        DamagedCheckpoint: its files cannot be loaded, or are of another model.
    """
    try:
        yield
    except (DamagedCheckpoint, NotImplementedError):
        raise
    except (RuntimeError, ValueError, KeyError, EOFError, OSError, pickle.UnpicklingError) as error:
        words = " ".join(str(error).split())[:300]
        raise DamagedCheckpoint(f"{checkpoint} cannot be loaded: {words}") from error


def _refuse_damaged(checkpoint: Path) -> None:
    """Refuse a checkpoint that somebody named; one of stock transformers has no seal, and passes.

    Raises:
        DamagedCheckpoint: it is sealed, and not whole.
    """
    if checkpoint not in sealed_checkpoints(checkpoint.parent):
        return
    words = fault(checkpoint)
    if words:
        raise DamagedCheckpoint(
            f"{checkpoint} is damaged ({words}); resume_from_checkpoint=True takes the newest "
            "whole one"
        )


def _refuse_weights_that_are_not_finite(model: torch.nn.Module, step: int) -> None:
    """Raises: Diverged: a parameter holds NaN or infinity."""
    bad = []
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            bad.append(name)
    if bad:
        raise Diverged(
            f"step {step}: {len(bad)} weights are not finite (first: {bad[0]}); "
            "nothing was saved over what was there"
        )


class _SaveAtBoundary(TrainerCallback):
    """Puts a due checkpoint off until the generation is used up."""

    def __init__(self, trainer: ResumableGRPOTrainer):
        self.trainer = trainer
        self.save_due = False

    def on_step_end(self, args, state, control, **kwargs):
        due = control.should_save or self.save_due
        # The last step saves wherever it falls: no later boundary comes.
        can_save = self.trainer.at_boundary or control.should_training_stop
        control.should_save = due and can_save
        self.save_due = due and not can_save
        return control

    def on_train_end(self, args, state, control, **kwargs):
        # A callback that ran after this one has stopped the run before the boundary came.
        if self.save_due:
            self.save_due = False
            trl_seams.save_checkpoint(self.trainer)
