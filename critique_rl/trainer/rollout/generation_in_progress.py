"""The generation in progress, for a checkpoint that lies inside it: samples that are not trained on
yet, and the place within them.

TRL keeps them in memory only: a run that was stopped inside a generation, by its last step or by a
callback, would sample anew and take another course. Left out: ranks that change between the two
processes, and other settings of a generation. Both are named in a sentence, and sampled anew.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerState
from trl import GRPOTrainer

from critique_rl.trainer import trl_seams
from critique_rl.trainer.checkpoint import GENERATION

Settings = list[int]
"""Numbers that say how a generation is split into optimizer steps."""
DIFFERS = "so the continued run is not the one that nobody stopped"


def is_boundary(trainer: GRPOTrainer, step: int) -> bool:
    """Whether a generation is used up after an optimizer step."""
    args: Any = trainer.args
    assert args.steps_per_generation is not None, "GRPOConfig's __post_init__ sets it"
    micro_steps = step * args.gradient_accumulation_steps
    return micro_steps % (args.steps_per_generation * trainer.num_iterations) == 0


def save_generation(trainer: GRPOTrainer, checkpoint: Path) -> None:
    """Write this rank's generation in progress into a checkpoint. Called on every rank."""
    micro_step, batches = trl_seams.generation_in_progress(trainer)
    content = {"micro_step": micro_step, "settings": _settings(trainer), "batches": batches}
    torch.save(content, _path(trainer, checkpoint))


def load_generation(trainer: GRPOTrainer, checkpoint: Path, step: int) -> str:
    """Go on within the generation of a checkpoint. Called on every rank.

    Args:
        trainer: a trainer whose training is about to start.
        checkpoint: a checkpoint of the same run.
        step: the checkpoint's optimizer step.

    Returns:
        Why that is not possible, in a sentence; "" where it is, and at a boundary.
    """
    if is_boundary(trainer, step):
        return ""
    content = _read(trainer, checkpoint)
    if content is None:
        return (
            f"step {step} lies inside a generation whose samples the checkpoint does not hold for "
            f"this rank; it samples anew, {DIFFERS}"
        )
    if content["settings"] != _settings(trainer):
        return (
            f"step {step} lies inside a generation of other settings (ranks, batch sizes, "
            f"iterations); it samples anew, {DIFFERS}"
        )
    trl_seams.continue_generation(trainer, content["micro_step"], content["batches"])
    return ""


def _read(trainer: GRPOTrainer, checkpoint: Path) -> dict[str, Any] | None:
    path = _path(trainer, checkpoint)
    if not path.exists():
        return None
    content: dict[str, Any] = torch.load(
        path, map_location=trainer.accelerator.device, weights_only=True
    )
    return content


def _path(trainer: GRPOTrainer, checkpoint: Path) -> Path:
    return checkpoint / GENERATION.format(trainer.accelerator.process_index)


def _settings(trainer: GRPOTrainer) -> Settings:
    args: Any = trainer.args
    assert args.steps_per_generation is not None, "GRPOConfig's __post_init__ sets it"
    return [
        trainer.accelerator.num_processes,
        args.per_device_train_batch_size,
        args.gradient_accumulation_steps,
        args.steps_per_generation,
        trainer.num_iterations,
    ]


def other_schedule(args: Any, stored: TrainerState) -> str:
    """A schedule of the learning rate that is not the one the checkpoint was made under.

    Args:
        args: the trainer's arguments.
        stored: the checkpoint's state.

    Returns:
        A sentence; "" where both are to take as many steps.
    """
    length = f"{stored.max_steps} steps"
    if args.max_steps > 0:
        now = f"{args.max_steps} steps"
        is_same = args.max_steps == stored.max_steps
    else:
        now = f"{args.num_train_epochs:g} epochs"
        # transformers keeps the number of begun epochs.
        is_same = math.ceil(args.num_train_epochs) == stored.num_train_epochs
    if is_same:
        return ""
    return (
        f"its learning rate followed a schedule over {length}, and goes on under one over {now}, "
        f"{DIFFERS}; lr_scheduler_type constant depends on neither"
    )
