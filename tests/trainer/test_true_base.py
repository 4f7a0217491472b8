"""The base of a teacher, an anchor and TRL's reference under adapters: the original model, or a
refusal.
"""

from __future__ import annotations

import pytest
import torch
from known_critics import DATA, Words
from lab_trainers import LAB
from peft import C3AConfig, FourierFTConfig, LoraConfig, get_peft_model
from tiny_trainers import SETTINGS
from transformers import AutoModelForCausalLM, AutoTokenizer

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer

MODULES = ["q_proj", "v_proj"]
PROBE = torch.arange(5, 25)[None]
READERS = {
    "beta": {"beta": 0.1},
    "distill_teacher": {"distill_weight": 1.0, "distill_teacher": "base"},
    "refine_anchor_weight": {"refine_anchor_weight": 1.0},
}


def lora(init) -> LoraConfig:
    return LoraConfig(r=4, target_modules=MODULES, init_lora_weights=init, task_type="CAUSAL_LM")


ADAPTERS = {
    **{str(init): lora(init) for init in (True, False, "gaussian", "orthogonal")},
    **{init: lora(init) for init in ("pissa", "pissa_niter_4", "olora")},
    "fourierft": FourierFTConfig(target_modules=MODULES, n_frequency=10, task_type="CAUSAL_LM"),
    "c3a": C3AConfig(target_modules=MODULES, block_size=16, task_type="CAUSAL_LM"),
}
SHIFTING = ("pissa", "pissa_niter_4", "olora")


def model_of(policy: str):
    return AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(PROBE).logits


def trainer_of(policy: str, folder, model, adapter=None, **settings) -> CritiqueGRPOTrainer:
    arguments = CritiqueGRPOConfig(str(folder), **{**SETTINGS, **LAB, **settings})
    return CritiqueGRPOTrainer(
        model,
        lambda completions, **columns: [0.0] * len(completions),
        arguments,
        DATA,
        critic=Words(),
        processing_class=AutoTokenizer.from_pretrained(policy),
        peft_config=adapter,
    )


@pytest.mark.parametrize("model_kind", ["object", "path"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_a_base_teacher_is_the_original_model_under_every_adapter(
    tiny_policy, tmp_path, name, model_kind
) -> None:
    model = model_of(tiny_policy)
    original = logits(model)
    settings = READERS["distill_teacher"]
    if model_kind == "path":
        model = tiny_policy
        settings = {**settings, "model_init_kwargs": {"dtype": "float32"}}
    trainer = trainer_of(tiny_policy, tmp_path, model, ADAPTERS[name], **settings)
    move_adapter(trainer)
    assert (logits(trainer.policy) - original).abs().max() > 1e-3, "the policy has moved"
    with trainer.distillation.teacher.weights(trainer.policy):
        torch.testing.assert_close(logits(trainer.policy), original, atol=1e-5, rtol=0)


def move_adapter(trainer: CritiqueGRPOTrainer) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))


def test_an_anchor_under_pissa_is_the_original_model_too(tiny_policy, tmp_path) -> None:
    model = model_of(tiny_policy)
    original = logits(model)
    trainer = trainer_of(
        tiny_policy, tmp_path, model, ADAPTERS["pissa"], **READERS["refine_anchor_weight"]
    )
    trainer.train()
    move_adapter(trainer)
    with trainer.distillation.anchor.weights(trainer.policy):
        torch.testing.assert_close(logits(trainer.policy), original, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", SHIFTING)
def test_trls_reference_is_refused_where_the_model_without_the_adapter_is_another(
    tiny_policy, tmp_path, name
) -> None:
    for given in (model_of(tiny_policy), tiny_policy):
        with pytest.raises(
            ValueError,
            match=rf"beta 0.1: init_lora_weights '{name}' changed the weights .*=True, or leave",
        ):
            trainer_of(tiny_policy, tmp_path, given, ADAPTERS[name], **READERS["beta"])


@pytest.mark.parametrize("reader", READERS)
def test_a_model_that_came_with_a_shifting_adapter_has_no_base_that_is_known(
    tiny_policy, tmp_path, reader
) -> None:
    wrapped = get_peft_model(model_of(tiny_policy), ADAPTERS["pissa"])
    before = logits(wrapped)
    with pytest.raises(ValueError, match=f"{reader}.*: the model came with an adapter .* 'pissa'"):
        trainer_of(tiny_policy, tmp_path, wrapped, **READERS[reader])
    # TRL's second adapter would have changed it
    assert torch.equal(logits(wrapped), before)


def test_without_a_reader_of_the_base_every_adapter_trains(tiny_policy, tmp_path) -> None:
    trainer = trainer_of(
        tiny_policy, tmp_path, model_of(tiny_policy), ADAPTERS["pissa"], max_steps=1
    )
    trainer.train()
    assert trainer.state.global_step == 1


def test_an_unknown_adapter_that_changes_weights_is_found_by_the_weights(
    tiny_policy, tmp_path, monkeypatch
) -> None:
    """As peft's `loftq` does, whose base is rounded for good: nothing gives it back."""

    def rounding(model, config, **kwargs):
        wrapped = get_peft_model(model, config, **kwargs)
        with torch.no_grad():
            for name, parameter in wrapped.named_parameters():
                if "base_layer" in name:
                    parameter.copy_((parameter * 8).round() / 8)
        return wrapped

    monkeypatch.setattr("trl.trainer.grpo_trainer.get_peft_model", rounding)
    with pytest.raises(ValueError, match=r"distill_teacher base: the adapter \(at .*q_proj"):
        trainer_of(
            tiny_policy,
            tmp_path,
            model_of(tiny_policy),
            ADAPTERS["True"],
            **READERS["distill_teacher"],
        )
