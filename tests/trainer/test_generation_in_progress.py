"""Runs that stop inside a generation: continued, they equal the run nobody stopped, or say in one
sentence that they do not.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from known_critics import Words
from tiny_trainers import even, history, trainer_of
from transformers import TrainerCallback

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.trainer.checkpoint import GENERATION, copy_checkpoint, last_sealed

# A generation is trained on in four optimizer steps, twice over in the second setting.
SETTINGS = {
    "per_device_train_batch_size": 4,
    "steps_per_generation": 4,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-3,
    "save_strategy": "steps",
    "save_steps": 100,
    "refine_template": "lab/refine",
}
VARIANTS = {
    "scalar": ({}, None),
    "twice": ({"num_iterations": 2, "steps_per_generation": 2}, None),
    "critique": ({"refine_slots": 1}, Words()),
    "share": ({"critique_share": 0.3, "critique_explore": 0.5}, Words()),
    "distill": ({"distill_weight": 0.5, "distill_template": "lab/teacher"}, Words()),
}


class Stop(TrainerCallback):
    """A user's callback that ends the run after a step, with a checkpoint or without."""

    def __init__(self, step: int, save: bool = True):
        self.step = step
        self.save = save

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            control.should_training_stop = True
            control.should_save = control.should_save or self.save


def build(policy, folder, variant="scalar", max_steps=11, **changes):
    options, critic = VARIANTS[variant]
    settings = {**SETTINGS, **options, "max_steps": max_steps, **changes}
    return trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        policy,
        folder,
        even,
        settings=settings,
        critic=critic,
    )


def check_equal(continued, whole) -> None:
    assert history(continued) == history(whole)
    pairs = zip(
        continued.model.state_dict().values(), whole.model.state_dict().values(), strict=True
    )
    assert all(torch.equal(got, wanted) for got, wanted in pairs)
    assert continued.tokens == whole.tokens
    assert choices(continued) == choices(whole)


def choices(trainer) -> list[dict]:
    """What was logged of the choice of failures, and what the next step knows of those before."""
    names = ("critique/due", "critique/asked", "critique/not_asked/")
    logged = []
    for row in trainer.state.log_history:
        logged.append({name: value for name, value in row.items() if name.startswith(names)})
    if trainer.critique_share is not None:
        logged.append(trainer.critique_share.state_dict())
    return logged


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_that_its_last_step_stopped_inside_a_generation_goes_on_exactly(
    tiny_policy, tmp_path, variant, caplog
) -> None:
    whole = build(tiny_policy, tmp_path / "whole", variant)
    whole.train()
    build(tiny_policy, tmp_path / "part", variant, max_steps=6).train()
    checkpoint = last_sealed(tmp_path / "part")
    assert checkpoint.name == "checkpoint-6"
    assert (checkpoint / GENERATION.format(0)).exists()
    continued = build(tiny_policy, tmp_path / "part", variant)
    continued.train(resume_from_checkpoint=True)
    check_equal(continued, whole)
    assert "nobody stopped" not in caplog.text


def test_the_choice_of_failures_goes_on_with_what_was_due_and_rescued(
    tiny_policy, tmp_path
) -> None:
    whole = build(tiny_policy, tmp_path / "whole", "share", max_steps=16)
    whole.train()
    part = build(tiny_policy, tmp_path / "part", "share", max_steps=8)
    part.train()
    known = part.critique_share.state_dict()
    assert known["due"] > 0
    assert known["refined"]["None"] > 0
    continued = build(tiny_policy, tmp_path / "part", "share", max_steps=16)
    continued.train(resume_from_checkpoint=True)
    check_equal(continued, whole)
    state = whole.critique_share.state_dict()
    asked = sum(row.get("critique/asked", 0) for row in choices(whole)[:-1])
    assert asked == 3 * state["due"] // 10


def test_a_checkpoint_without_a_choice_starts_one(tiny_policy, tmp_path) -> None:
    trainer = build(tiny_policy, tmp_path, "share")
    trainer.critique_share.due = 7
    state = trainer.extra_state()
    assert state.pop("critique_share")["due"] == 7
    trainer.load_extra_state(tmp_path, state)
    assert trainer.critique_share.due == 0


def test_a_run_that_a_users_callback_stopped_inside_a_generation_goes_on_exactly(
    tiny_policy, tmp_path
) -> None:
    whole = build(tiny_policy, tmp_path / "whole")
    whole.train()
    part = build(tiny_policy, tmp_path / "part")
    part.add_callback(Stop(5))
    part.train()
    continued = build(tiny_policy, tmp_path / "part")
    continued.train(resume_from_checkpoint=True)
    check_equal(continued, whole)


def test_a_checkpoint_that_was_due_is_written_where_a_callback_stops_the_run(
    tiny_policy, tmp_path
) -> None:
    part = build(tiny_policy, tmp_path, save_steps=5)
    part.add_callback(Stop(6, save=False))  # due at 5, put off until 8
    part.train()
    assert last_sealed(tmp_path).name == "checkpoint-6"


def test_samples_that_are_not_there_are_missed_in_one_sentence(
    tiny_policy, tmp_path, caplog
) -> None:
    build(tiny_policy, tmp_path / "part", max_steps=6).train()
    checkpoint = last_sealed(tmp_path / "part")
    # As an earlier version wrote it; and as a branch gets it, whose batches may be others.
    copy_checkpoint(checkpoint, tmp_path / "copy")
    continued = build(tiny_policy, tmp_path / "copy")
    continued.train(resume_from_checkpoint=True)
    assert continued.state.global_step == 11
    assert "step 6 lies inside a generation whose samples the checkpoint does not" in caplog.text
    caplog.clear()
    other = build(tiny_policy, tmp_path / "other", steps_per_generation=8)
    other.train(resume_from_checkpoint=str(checkpoint))
    assert "step 6 lies inside a generation of other settings" in caplog.text


def test_another_schedule_of_the_learning_rate_is_named(tiny_policy, tmp_path, caplog) -> None:
    linear = {"lr_scheduler_type": "linear"}
    build(tiny_policy, tmp_path, max_steps=4, **linear).train()
    continued = build(tiny_policy, tmp_path, max_steps=6, **linear)
    continued.train(resume_from_checkpoint=True)
    words = "its learning rate followed a schedule over 4 steps, and goes on under one over 6 steps"
    assert words in caplog.text
    assert not Path(tmp_path / "checkpoint-4" / GENERATION.format(0)).exists()  # at a boundary
