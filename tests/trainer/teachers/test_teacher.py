"""The distillation teachers: base, moving average and live, in checkpoints and under LoRA."""

from __future__ import annotations

import pytest
import torch
from known_critics import DATA, Turns, Words, generated
from lab_trainers import DISTILL, LAB, completion_tokens, context_tokens, critique_trainer
from tiny_trainers import trainer_of
from torch import nn
from transformers import AutoModelForCausalLM

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.trainer import hidden_states
from critique_rl.trainer.checkpoint import STATE, DamagedCheckpoint
from critique_rl.trainer.teachers.teacher import FILE, Teacher


def scalar_model(value: float) -> nn.Linear:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


def test_the_moving_average_after_two_updates_by_hand() -> None:
    model = scalar_model(1.0)
    teacher = Teacher(model, "ema", 0.25)
    # .75 * 1 + .25 * 5 = 2, then .75 * 2 + .25 * -2 = 1
    for value, expected in ((5.0, 2.0), (-2.0, 1.0)):
        nn.init.constant_(model.weight, value)
        teacher.update(model)
        assert teacher.kept["weight"].item() == expected
        assert model.weight.item() == value


def test_within_the_block_the_weights_are_the_teachers_and_afterwards_the_policys() -> None:
    model = scalar_model(1.0)
    teacher = Teacher(model, "ema", 0.5)
    nn.init.constant_(model.weight, 3.0)
    with teacher.weights(model):
        assert model.weight.item() == 1.0
    with pytest.raises(RuntimeError, match="out of memory"), teacher.weights(model):
        raise RuntimeError("out of memory")
    assert (model.weight.item(), teacher.kept["weight"].item()) == (3.0, 1.0)
    # and the average still moves on its own: .5 * 1 + .5 * 3
    teacher.update(model)
    assert (model.weight.item(), teacher.kept["weight"].item()) == (3.0, 2.0)


def test_the_base_stays_and_the_live_teacher_keeps_nothing(tmp_path) -> None:
    model = scalar_model(1.0)
    base, live = Teacher(model, "base", 0.5), Teacher(model, "live", 0.5)
    nn.init.constant_(model.weight, 3.0)
    for teacher in (base, live):
        teacher.update(model)
        teacher.save(tmp_path)
        teacher.load(tmp_path)
    assert base.kept["weight"].item() == 1.0
    assert live.kept == {}
    with live.weights(model):
        assert model.weight.item() == 3.0
    assert not (tmp_path / FILE).exists()


def test_frozen_weights_are_not_kept() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    model[0].requires_grad_(False)
    assert set(Teacher(model, "ema", 0.1).kept) == {"1.weight", "1.bias"}


def test_a_saved_average_comes_back_and_a_checkpoint_without_one_is_refused(tmp_path) -> None:
    teacher, other = Teacher(scalar_model(1.5), "ema", 0.5), Teacher(scalar_model(0.0), "ema", 0.5)
    teacher.save(tmp_path)
    other.load(tmp_path)
    assert other.kept["weight"].item() == 1.5
    (tmp_path / FILE).unlink()
    with pytest.raises(
        FileNotFoundError,
        match=(
            "the checkpoint has no EMA teacher; it was written by a run without distill_teacher "
            "'ema'"
        ),
    ):
        other.load(tmp_path)


@pytest.mark.parametrize(("per", "expected"), [("step", [1, 2, 3, 4]), ("generation", [2, 4])])
def test_the_average_moves_per_step_or_after_a_generations_last(
    tiny_policy, tmp_path, per, expected
) -> None:
    settings = {
        **DISTILL,
        "distill_teacher": "ema",
        "distill_ema_per": per,
        "distill_context": "demonstration",
        "steps_per_generation": 2,
        "max_steps": 4,
    }
    trainer = critique_trainer(tiny_policy, tmp_path, Turns([0.0] * 16), **settings)
    update = trainer.distillation.teacher.update
    moved = []

    def watched(policy) -> None:
        moved.append(trainer.state.global_step)
        update(policy)

    trainer.distillation.teacher.update = watched
    trainer.train()
    assert moved == expected


def test_a_resumed_run_has_the_teacher_of_an_uninterrupted_one(tiny_policy, tmp_path) -> None:
    settings = {
        **DISTILL,
        "distill_teacher": "ema",
        "distill_ema": 0.3,
        "distill_context": "demonstration",
        "max_steps": 4,
    }
    uninterrupted = critique_trainer(
        tiny_policy, tmp_path, Turns([0.0] * 8), **settings, save_strategy="steps", save_steps=2
    )
    start = {name: value.clone() for name, value in uninterrupted.distillation.teacher.kept.items()}
    uninterrupted.train()
    assert (tmp_path / "checkpoint-2" / FILE).exists()
    resumed = critique_trainer(tiny_policy, tmp_path, Turns([0.0] * 8), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    kept = uninterrupted.distillation.teacher.kept
    assert kept.keys() == resumed.distillation.teacher.kept.keys() == start.keys()
    assert all(
        torch.equal(value, resumed.distillation.teacher.kept[name]) for name, value in kept.items()
    )
    assert all(
        torch.equal(a, b)
        for a, b in zip(uninterrupted.model.parameters(), resumed.model.parameters(), strict=True)
    )
    assert any(not torch.equal(value, start[name]) for name, value in kept.items())
    (tmp_path / "checkpoint-2" / FILE).unlink()
    with pytest.raises(DamagedCheckpoint, match=r"teacher\.safetensors is missing"):
        critique_trainer(tiny_policy, tmp_path, Turns([0.0] * 8), **settings).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-2")
        )
    # A checkpoint of stock transformers has no seal.
    (tmp_path / "checkpoint-2" / STATE).unlink()
    with pytest.raises(
        DamagedCheckpoint,
        match=r"checkpoint-2/teacher\.safetensors: the checkpoint has no EMA teacher",
    ):
        critique_trainer(tiny_policy, tmp_path, Turns([0.0] * 8), **settings).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-2")
        )


def test_with_lora_the_base_is_the_model_without_its_adapter(tiny_policy, tmp_path) -> None:
    peft = pytest.importorskip("peft")
    adapter = peft.LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    settings = {**LAB, **DISTILL, "distill_mode": "full", "distill_teacher": "base"}
    trainer = trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path,
        Turns([0.0] * 8),
        DATA,
        settings=settings,
        critic=Words(),
        peft_config=adapter,
    )
    teacher = trainer.distillation.teacher
    output = generated(trainer)
    assert teacher.adapter_off
    assert teacher.kept == {}
    hidden, _ = trainer.distillation.read(hidden_states.term_rows(output, "distill_mask"), teacher)
    context = context_tokens(output, 5)
    completion = completion_tokens(output, 5)
    ids = torch.tensor([context + completion])
    with torch.no_grad():
        base = (
            AutoModelForCausalLM.from_pretrained(tiny_policy, dtype=torch.float32)
            .model(ids)
            .last_hidden_state[0, len(context) - 1 : -1]
        )
        policy = (
            hidden_states.causal_model(trainer.model)
            .base_model(ids)
            .last_hidden_state[0, len(context) - 1 : -1]
        )
    torch.testing.assert_close(hidden[5, : len(completion)], base, atol=1e-5, rtol=1e-5)
    assert (policy - base).abs().max() > 1e-3, "the adapter is on again"
    assert trainer._compute_loss(trainer.model, output).item() > 0
