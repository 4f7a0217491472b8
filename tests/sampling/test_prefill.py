"""Prompts that are sampled from several times are read once, and the answers are the same ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_models import alibi, gpt2, llama, qwen2, windowed
from transformers import PreTrainedModel

from critique_rl.policy import load_policy
from critique_rl.sampling import sample as sampler
from critique_rl.sampling.prefill import can_share
from critique_rl.sampling.settings import Sampling

SAMPLING = Sampling(max_new_tokens=6, batch=8)


def answers(model: PreTrainedModel, shares: bool) -> list[list[int]]:
    """Three prompts of 1, 3 and 5 tokens, asked 1, 4 and 2 times in one batch, out of order."""
    first, second, third = [5], [6, 7, 8], [9, 10, 11, 12, 13]
    prompts = [second, third, second, first, second, third, second]
    settings = {
        "max_new_tokens": 12,
        "do_sample": True,
        "pad_token_id": 0,
        "eos_token_id": [1],
        "top_k": 0,
    }
    torch.manual_seed(3)
    with torch.no_grad():
        return sampler._generate(model, prompts, settings, [1], shares)


@pytest.mark.parametrize("build", [llama, qwen2, gpt2])
def test_answers_are_those_of_prompts_read_each_time(build) -> None:
    torch.manual_seed(0)
    model = build().eval()
    read = 0

    def count(module, arguments, keywords) -> None:
        nonlocal read
        read += keywords["input_ids"].numel()

    assert can_share(model, SAMPLING)
    alone = answers(model, shares=False)
    handle = model.register_forward_pre_hook(count, with_kwargs=True)
    shared = answers(model, shares=True)
    handle.remove()
    assert shared == alone
    steps = max(len(answer) for answer in alone)
    # Three prompts of four places, padding included, then one place per answer and step.
    assert read == 3 * 4 + 7 * steps


def test_only_where_the_cache_is_plain_and_nothing_else_is_asked_for() -> None:
    model = llama()
    assert can_share(model, SAMPLING)
    assert not can_share(windowed(), SAMPLING)
    assert not can_share(alibi(), SAMPLING)
    assert not can_share(model, replace(SAMPLING, cache_implementation="static"))
    assert not can_share(model, replace(SAMPLING, generation_kwargs={"num_beams": 2}))
    model.generation_config.no_repeat_ngram_size = 2
    assert not can_share(model, SAMPLING)


def test_an_adapter_s_policy_shares_too() -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(llama(), peft.LoraConfig(task_type="CAUSAL_LM")).eval()
    assert can_share(model, SAMPLING)
    assert answers(model, shares=True) == answers(model, shares=False)


def test_the_lab_s_policy_samples_as_before() -> None:
    model, tokenizer = load_policy("lab")
    prompts = ["1 + 2", "3 + 4 + 5"] * 3
    shared = sampler.sample(model, tokenizer, prompts, SAMPLING, seed=1)
    # With this setting, which is the default written out, nothing is shared.
    alone = replace(SAMPLING, generation_kwargs={"num_beams": 1})
    assert shared == sampler.sample(model, tokenizer, prompts, alone, seed=1)
