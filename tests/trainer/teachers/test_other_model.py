"""Another model in this process as teacher: equal to the base where its weights are, and refused
where it cannot read the policy's tokens.
"""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path

import pytest
import torch
from known_critics import Turns, Words, WordsPerProblem, generated
from lab_trainers import DISTILL, critique_trainer, move_weights
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CohereConfig,
    CohereForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
)

from critique_rl import CritiqueGRPOConfig
from critique_rl.config.checks import ConfigError
from critique_rl.costs import flops
from critique_rl.trainer import hidden_states
from critique_rl.trainer.teachers.other_model import tokenizer_fault

MODES = [
    {"distill_mode": "full", "distill_alpha": 0.0},
    {"distill_mode": "full", "distill_alpha": 1.0, "distill_prefix": True},
    {"distill_mode": "topk", "distill_alpha": 0.5, "distill_top_k": 5},
    {"distill_mode": "sampled"},
    {"distill_mode": "advantage"},
    {"distill_mode": "advantage", "distill_contrast": "shuffled"},
]


def trainer_with(policy, folder, teacher, **settings):
    critic = WordsPerProblem() if "distill_contrast" in settings else Words()
    options = {**DISTILL, "distill_teacher": teacher, **settings}
    return critique_trainer(policy, folder, Turns([0.0] * 8), critic, **options)


def copied(policy: str, folder: Path, change=None) -> str:
    """A model folder with the policy's tokenizer, after `change` of the model."""
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    if change is not None:
        change(model)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(policy).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: "-".join(map(str, mode.values())))
def test_a_copy_of_the_start_teaches_as_the_base_does(tiny_policy, tmp_path, mode) -> None:
    outcomes = []
    for teacher in ("base", {"model": tiny_policy}):
        trainer = trainer_with(tiny_policy, tmp_path, teacher, **mode)
        move_weights(trainer)
        torch.manual_seed(0)
        output = generated(trainer)
        loss = trainer._compute_loss(trainer.model, output)
        gradients = torch.autograd.grad(loss, list(trainer.model.parameters()))
        outcomes.append((loss, gradients, trainer.tokens["tokens/teacher"]))
    (base_loss, base_gradients, base_tokens), (loss, gradients, tokens) = outcomes
    assert abs(loss - base_loss) <= 1e-6
    for ours, theirs in zip(gradients, base_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    assert max(gradient.abs().max() for gradient in gradients) > 1e-3
    assert tokens == base_tokens > 0


def test_a_training_series_is_that_of_the_base_and_the_teacher_stays_as_it_was(
    tiny_policy, tmp_path
) -> None:
    rows = []
    for teacher in ("base", {"model": tiny_policy}):
        trainer = trainer_with(tiny_policy, tmp_path / str(len(rows)), teacher, max_steps=4)
        trainer.train()
        keys = ("loss", "grad_norm", "distill/divergence", "tokens/teacher", "cost/flops")
        rows.append([{key: row[key] for key in keys} for row in trainer.state.log_history[:-1]])
    for ours, theirs in zip(*rows, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)
    assert rows[0][-1]["distill/divergence"] > 0
    other = trainer.distillation.teacher.other
    fresh = AutoModelForCausalLM.from_pretrained(tiny_policy, dtype=torch.float32)
    for kept, start in zip(other.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(kept, start)
        assert not kept.requires_grad
    assert not other.training


def test_nothing_of_it_is_saved(tiny_policy, tmp_path) -> None:
    settings = {"max_steps": 1, "save_strategy": "steps", "save_steps": 1}
    trainer_with(tiny_policy, tmp_path, {"model": tiny_policy}, **settings).train()
    assert not list((tmp_path / "checkpoint-1").glob("teacher*"))


def test_a_larger_teacher_costs_its_own_operations(tiny_policy, tmp_path) -> None:
    def deepen(model) -> None:
        model.model.layers.append(copy.deepcopy(model.model.layers[0]))
        model.config.num_hidden_layers = len(model.model.layers)

    folder = copied(tiny_policy, tmp_path / "deep", deepen)
    trainer = trainer_with(tiny_policy, tmp_path, {"model": folder})
    assert trainer.teacher_parameters > trainer.parameters
    generated(trainer)
    read = trainer.tokens["tokens/teacher"]
    same_size = flops(trainer.tokens, trainer.parameters)
    more = 2 * read * (trainer.teacher_parameters - trainer.parameters)
    assert trainer.costs()["flops"] == pytest.approx(same_size + more)


def test_rows_that_the_teachers_head_has_alone_take_no_part(tiny_policy, tmp_path) -> None:
    """Padding of the vocabulary: the divergence is that of a teacher without these rows."""
    tokens = len(AutoTokenizer.from_pretrained(tiny_policy))
    padded = copied(tiny_policy, tmp_path / "pad", lambda m: m.resize_token_embeddings(tokens + 9))
    for alpha in (0.0, 0.5, 1.0):
        losses = []
        for teacher in (padded, tiny_policy):
            mode = {"distill_mode": "full", "distill_alpha": alpha}
            trainer = trainer_with(tiny_policy, tmp_path, {"model": teacher}, **mode)
            torch.manual_seed(0)
            losses.append(trainer._compute_loss(trainer.model, generated(trainer)).item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-6) != 0
    words = f"the head of .* has {tokens} rows and the policy's has {tokens + 9}"
    with pytest.raises(ValueError, match=words):
        trainer_with(padded, tmp_path, {"model": tiny_policy})


# ---- refusals ------------------------------------------------------------------------------------


def change_tokenizer(policy: str, folder: Path, change) -> str:
    name = copied(policy, folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return name


def swap(content) -> None:
    vocabulary = content["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]


def rename(content) -> None:
    vocabulary = content["model"]["vocab"]
    vocabulary["ż"] = vocabulary.pop("A")


def shorten(content) -> None:
    content["model"]["vocab"].popitem()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (swap, r"the token '.' has the id \d+, in the policy's \d+"),
        (rename, r"the token 'ż' \(\d+\), which the policy's lacks"),
        (shorten, r"\d+ tokens, and the policy's has \d+"),
    ],
)
def test_another_tokenizer_is_refused_with_what_differs(
    tiny_policy, tmp_path, change, words
) -> None:
    folder = change_tokenizer(tiny_policy, tmp_path / "other", change)
    with pytest.raises(ValueError, match=f"another tokenizer than the policy: {words}"):
        trainer_with(tiny_policy, tmp_path, {"model": folder})


def test_another_end_token_is_refused_and_another_chat_template_told(tiny_policy, tmp_path) -> None:
    folder = copied(tiny_policy, tmp_path / "other")
    tokenizer = AutoTokenizer.from_pretrained(tiny_policy)
    other = AutoTokenizer.from_pretrained(tiny_policy)
    other.eos_token = "<user>"
    assert tokenizer_fault(other, tokenizer) == "its eos_token is '<user>', the policy's '<end>'"
    other = AutoTokenizer.from_pretrained(tiny_policy)
    other.chat_template = "{{ messages[0]['content'] }}"
    other.save_pretrained(folder)
    with pytest.warns(UserWarning, match="another chat template than the policy"):
        trainer_with(tiny_policy, tmp_path, {"model": folder})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        trainer_with(tiny_policy, tmp_path, {"model": tiny_policy})


def save_granite(tiny_policy: str, folder: Path) -> None:
    """A model that divides its logits by 4, with the policy's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_policy)
    config = GraniteConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        initializer_range=0.5,
        logits_scaling=4.0,
    )
    GraniteForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_logits_that_a_head_does_not_give_are_refused(tiny_policy, tmp_path, monkeypatch) -> None:
    save_granite(tiny_policy, tmp_path / "granite")
    monkeypatch.setattr(hidden_states, "_logit_scale", lambda settings: 1.0)
    with pytest.raises(ValueError, match="it does more with its logits"):
        trainer_with(tiny_policy, tmp_path, {"model": str(tmp_path / "granite")})


SCALED = {
    "granite": (GraniteForCausalLM, GraniteConfig, {"logits_scaling": 4.0}),
    "cohere": (CohereForCausalLM, CohereConfig, {"logit_scale": 0.25}),
}


@pytest.mark.parametrize("kind", SCALED)
def test_a_head_has_the_scale_of_its_architecture(kind) -> None:
    model_class, config_class, scale = SCALED[kind]
    sizes = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "initializer_range": 0.5}
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    model = model_class(config_class(**sizes, **heads, **ends, **scale))
    with torch.no_grad(), hidden_states.last_hidden_states(model) as seen:
        logits = model(torch.arange(8).unsqueeze(0)).logits[0]
    head = hidden_states.head_of(model).detach()
    assert head.scale == 0.25
    ours = head.finish(head.project(seen[0][0], torch.empty_like(logits)), 1.0)
    torch.testing.assert_close(ours, logits)


@pytest.mark.trains
@pytest.mark.parametrize("mode", ["full", "sampled"])
def test_policies_and_teachers_that_scale_their_logits_train(tiny_policy, tmp_path, mode) -> None:
    """In mode full the student's log-probs are checked against TRL's at each step."""
    save_granite(tiny_policy, tmp_path / "granite")
    granite = str(tmp_path / "granite")
    trainer = trainer_with(granite, tmp_path, {"model": granite}, distill_mode=mode)
    trainer.train()
    assert trainer.state.global_step > 0


def test_a_folder_that_is_not_there_is_refused(tiny_policy, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"distill_teacher\.model: .*/nowhere' is no folder"):
        trainer_with(tiny_policy, tmp_path, {"model": str(tmp_path / "nowhere")})


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        ("bass", "did you mean 'base'"),
        ({"modle": "x"}, "did you mean 'model'"),
        ({"model": "x", "dtype": "int4"}, "expected one of float32, bfloat16, float16"),
        ({"model": 3}, "distill_teacher.model: got 3"),
        (None, "distill_teacher: got None"),
    ],
)
def test_a_section_that_cannot_be_used_is_refused_before_a_model_is_loaded(teacher, words) -> None:
    with pytest.raises(ConfigError, match=words):
        CritiqueGRPOConfig("out", use_cpu=True, bf16=False, distill_teacher=teacher)
