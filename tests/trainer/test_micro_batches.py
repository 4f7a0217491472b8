"""Micro batches of a generation under distillation: iterations, accumulation and evaluation."""

from __future__ import annotations

import math

import pytest
import torch
from known_critics import DATA, Turns, Words, generated
from lab_trainers import DISTILL, HALF, LAB, critique_trainer, move_weights
from tiny_trainers import trainer_of

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer


@pytest.mark.parametrize("mode", ["advantage", "sampled", "topk", "full"])
def test_with_iterations_and_accumulation_micro_batches_stay_as_they_are(
    tiny_policy, tmp_path, mode
) -> None:
    both = (
        {}
        if mode in ("advantage", "sampled")
        else {"distill_target": "both", "refine_own_weight": 0.1}
    )
    settings = {
        "distill_weight": 1.0,
        "distill_mode": mode,
        "distill_teacher": "ema",
        "num_iterations": 2,
        "gradient_accumulation_steps": 2,
        **both,
    }
    # 16 rows a generation, 12 of them rollouts
    trainer = critique_trainer(
        tiny_policy,
        tmp_path,
        Turns([1.0, 0.0, 0.0] * 4, [1.0] * 12),
        Words(),
        **settings,
        max_steps=4,
    )
    compute = trainer._compute_loss
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    seen = []

    def watched(model, inputs):
        copies = {name: value.clone() for name, value in inputs.items()}
        loss = compute(model, inputs)
        assert inputs.keys() == copies.keys()
        assert all(torch.equal(value, copies[name]) for name, value in inputs.items())
        seen.append((id(inputs), inputs["advantages"].dim(), loss.item()))
        return loss

    trainer._compute_loss = watched
    trainer.train()
    # two micro batches a step; those of a generation come back in its second iteration
    assert [number for number, _, _ in seen[:2]] == [number for number, _, _ in seen[2:4]]
    assert all(dim == 1 and math.isfinite(value) for _, dim, value in seen)
    assert len(seen) == 8
    assert any(
        not torch.equal(before[name], value) for name, value in trainer.model.state_dict().items()
    )


@pytest.mark.parametrize("normalizer", ["own", "rows"])
def test_micro_batches_add_up_to_the_whole_batch(tiny_policy, tmp_path, normalizer) -> None:
    # four micro batches of two rows a generation, two of them a step: each step's sum is over half
    # of the tokens, so the two steps' mean is the whole's
    settings = {
        **DISTILL,
        "distill_mode": "full",
        "distill_teacher": "base",
        "distill_normalizer": normalizer,
        "per_device_train_batch_size": 2,
    }
    trainer = critique_trainer(
        tiny_policy,
        tmp_path,
        Turns(HALF),
        Words(),
        **settings,
        gradient_accumulation_steps=2,
        steps_per_generation=4,
    )
    move_weights(trainer)
    output = generated(trainer)
    trainer.current_gradient_accumulation_steps = 2
    parts = [
        {name: value[i : i + 2] if value.ndim else value for name, value in output.items()}
        for i in range(0, 8, 2)
    ]
    apart = sum(trainer._compute_loss(trainer.model, part) for part in parts) / 2
    trainer.args.steps_per_generation = trainer.current_gradient_accumulation_steps = 1
    torch.testing.assert_close(apart, trainer._compute_loss(trainer.model, output))


@pytest.mark.parametrize("mode", ["advantage", "topk"])
def test_a_held_out_set_can_be_evaluated_while_distilling(tiny_policy, tmp_path, mode) -> None:
    settings = {
        **LAB,
        **DISTILL,
        "distill_mode": mode,
        "max_steps": 1,
        "per_device_eval_batch_size": 8,
    }
    reward = lambda completions, **columns: [0.0] * len(completions)  # noqa: E731
    trainer = trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path,
        reward,
        DATA,
        settings=settings,
        critic=Words(),
        eval_dataset=DATA.select(range(2)),
    )
    trainer.train()
    assert math.isfinite(trainer.evaluate()["eval_loss"])
