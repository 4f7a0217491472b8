"""GRPOTrainer whose runs continue exactly: whole checkpoints only, where a generation is used up,
with what transformers and TRL do not keep.

    TRL keeps no sampled batch, so a checkpoint waits until the last generation is trained on; its sampler starts again at the first epoch's order; metrics
    not yet logged and states of callbacks are lost. Here these are in the checkpoint too (`checkpoint`), beside what a subclass adds.

It changes nothing that is trained: without an interruption the run is stock GRPOTrainer's, bit for
bit.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import GRPOTrainer

from critique_rl.trainer.checkpoint import last_sealed, read_state, rotate, seal


class Diverged(RuntimeError):
    """Training met a loss or weights that are not finite, and stopped before it saved them."""


class ResumableGRPOTrainer(GRPOTrainer):
    """GRPOTrainer with exact continuation. Checkpoints of `kept_steps` outlive `save_total_limit`."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.kept_steps: set[int] = set()
        self.add_callback(_SaveAtBoundary(self))

    @property
    def at_boundary(self) -> bool:
        """True where every micro batch of the last generation was trained on: a run continues
        exactly from there only.
        """
        micro = self.state.global_step * self.args.gradient_accumulation_steps
        return micro % (self.args.steps_per_generation * self.num_iterations) == 0

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """TRL's `train`; True continues from the newest whole checkpoint of output_dir, never from
        a half-written one.
        """
        if resume_from_checkpoint is True:
            newest = last_sealed(Path(self.args.output_dir))
            if newest is None:
                raise ValueError(
                    f"resume_from_checkpoint: no whole checkpoint in {self.args.output_dir}; leave it out to start anew"
                )
            resume_from_checkpoint = str(newest)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def extra_state(self) -> dict[str, Any]:
        """What the next process needs besides transformers' files, as JSON."""
        return {
            "kept_steps": sorted(self.kept_steps),
            "metrics": dict(self._metrics["train"]),
            "callbacks": {
                name: callback.state_dict() for name, callback in self._stateful_callbacks().items()
            },
        }

    def save_extra_files(self, checkpoint: Path) -> None:
        """Files of a subclass, before the checkpoint counts as whole. Called on every rank; what is
        written is the main one's.
        """

    def load_extra_state(self, checkpoint: Path, state: dict[str, Any]) -> None:
        """The inverse of `extra_state` and `save_extra_files`."""
        self.kept_steps |= set(state.get("kept_steps", ()))
        self._metrics["train"].update(state.get("metrics", {}))
        for name, callback in self._stateful_callbacks().items():
            if name in state.get("callbacks", {}):
                callback.load_state_dict(state["callbacks"][name])

    def restore(self, checkpoint: Path) -> None:
        """Weights, step and counts of a checkpoint, for a run that has no step left to take."""
        self._load_from_checkpoint(str(checkpoint))
        self.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        self.load_extra_state(checkpoint, read_state(checkpoint))

    def _save_checkpoint(self, model, trial):
        bad = [
            name
            for name, parameter in model.named_parameters()
            if not torch.isfinite(parameter).all()
        ]
        if bad:
            raise Diverged(
                f"step {self.state.global_step}: {len(bad)} weights are not finite (first: {bad[0]}); nothing was saved over what was there"
            )
        limit, self.args.save_total_limit = (
            self.args.save_total_limit,
            None,
        )  # rotated below, once this one is whole
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        folder = Path(self._get_output_dir(trial=trial))
        checkpoint = folder / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        self.save_extra_files(checkpoint)
        if self.args.should_save:
            seal(checkpoint, self.extra_state())
            best = (
                [Path(self.state.best_model_checkpoint)] if self.state.best_model_checkpoint else []
            )
            rotate(
                folder,
                limit,
                [*best, *(folder / f"{PREFIX_CHECKPOINT_DIR}-{step}" for step in self.kept_steps)],
            )

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        self.load_extra_state(Path(checkpoint), read_state(Path(checkpoint)))
        # TRL's sampler draws a new order each epoch from one generator and starts again at the
        # first epoch's order when a run is resumed.
        stored = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
        for _ in range(int(stored.epoch or 0)):
            torch.randperm(self._sampler.num_samples, generator=self._sampler.generator)

    def _get_train_sampler(self, dataset=None):
        self._sampler = super()._get_train_sampler(dataset)
        return self._sampler

    def _stateful_callbacks(self) -> dict[str, Any]:
        """Callbacks with a state by class name; the second of a class is its "<name>-2"."""
        named, counts = {}, Counter()
        for callback in (c for c in self.callback_handler.callbacks if hasattr(c, "state_dict")):
            name = type(callback).__name__
            counts[name] += 1
            named[name if counts[name] == 1 else f"{name}-{counts[name]}"] = callback
        return named


class _SaveAtBoundary(TrainerCallback):
    """Puts a due checkpoint off until the generation is used up."""

    def __init__(self, trainer: ResumableGRPOTrainer):
        self.trainer, self.save_due = trainer, False

    def on_step_end(self, args, state, control, **kwargs):
        due = control.should_save or self.save_due
        now = self.trainer.at_boundary or control.should_training_stop
        control.should_save, self.save_due = due and now, due and not now
        return control
