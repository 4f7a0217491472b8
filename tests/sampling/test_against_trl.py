"""Ids, stops, settings, texts and counts of our sampler are those of TRL's own rollouts."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import bigram_policies
import pytest
import torch
from bigram_policies import KINDS, Kind
from datasets import Dataset
from tiny_trainers import SETTINGS
from transformers import GenerationConfig, GPT2Config
from trl import GRPOConfig, GRPOTrainer

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.policy import load_policy
from critique_rl.sampling.sample import sample
from critique_rl.sampling.settings import (
    Sampling,
    generation_settings,
    neutral_config,
    record,
    stop_ids,
)
from critique_rl.sampling.tokens import prompt_ids, prompt_text, prompts_digest, trace_ids
from critique_rl.trainer import trl_seams
from critique_rl.trainer.rollout.sampling_options import rollout_sampling, sampling_warnings

pytestmark = pytest.mark.trains


def zero(completions, **columns) -> list[float]:
    return [0.0] * len(completions)


def stock_trainer(kind: Kind, folder) -> GRPOTrainer:
    """TRL's own trainer on the folder as it is, but for what the user makes neutral."""
    bigram_policies.save_policy(kind, folder)
    model, tokenizer = load_policy(str(folder))
    if kind.neutral:
        model.generation_config = neutral_config(model.generation_config)
    arguments = GRPOConfig(output_dir=str(folder / "out"), **{**SETTINGS, **kind.trl})
    rows = Dataset.from_list([{"prompt": prompt} for prompt in bigram_policies.prompts(kind)])
    return GRPOTrainer(model, zero, arguments, rows, processing_class=tokenizer)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_our_sampler_is_trl_s(kind: Kind, tmp_path) -> None:
    trainer = stock_trainer(kind, tmp_path)
    # An evaluation has the same folder, loaded anew, and the options.
    model, tokenizer = load_policy(str(tmp_path))
    if kind.neutral:
        model.generation_config = neutral_config(model.generation_config)
    sampling = rollout_sampling({**SETTINGS, **kind.trl})
    prompts = bigram_policies.prompts(kind) * 8

    ids, _, _ = trainer._tokenize_prompts(prompts)
    assert prompt_ids(tokenizer, prompts, sampling.chat_template_kwargs) == ids
    stops = stop_ids(tokenizer, model.generation_config)
    assert stops == trainer.eos_token_ids
    settings = GenerationConfig(
        **generation_settings(sampling, tokenizer, stops), disable_compile=True
    )
    assert settings.to_dict() == trainer.generation_config.to_dict()
    in_force = model._prepare_generation_config(settings)[0]
    assert in_force.to_dict() == trainer.model._prepare_generation_config(settings)[0].to_dict()

    trainer.model.train()
    # The same draws in the same order: every text is the same one.
    torch.manual_seed(5)
    _, completion_ids, _, completions, *_ = trainer._generate(prompts)
    ours = sample(model, tokenizer, prompts, sampling, seed=5)
    texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    assert [answer.text for answer in ours] == texts
    assert [answer.tokens for answer in ours] == [len(ids) for ids in completion_ids]
    cut = sum(answer.truncated for answer in ours) / len(ours)
    [clipped] = trainer._metrics["train"]["completions/clipped_ratio"]
    assert cut == pytest.approx(clipped) == 0
    # And what is known of the policy: 480 answers, sd of a share .02.
    assert {answer.tokens for answer in ours} == {kind.tokens}
    right = sum(text.endswith("5") for text in texts) / len(texts)
    assert right == pytest.approx(kind.right, abs=0.08 if 0 < kind.right < 1 else 0)
    assert set(texts) <= set(bigram_policies.ANSWERS)

    torch.manual_seed(5)
    sampled = trl_seams.sample(trainer, prompts)
    assert (sampled.completion_ids, sampled.completions) == (completion_ids, completions)


def kind_of(name: str) -> Kind:
    return next(kind for kind in KINDS if kind.name == name)


def test_cut_answers_are_told_and_counted_as_trl_does(tmp_path) -> None:
    kind = kind_of("two eos, pad == eos")
    short = {"max_completion_length": 4}
    trainer = stock_trainer(replace(kind, trl=short), tmp_path)
    trainer.model.train()
    _, completion_ids, *_ = trainer._generate(bigram_policies.prompts(kind))
    sampling = rollout_sampling({**SETTINGS, **short})
    ours = sample(*load_policy(str(tmp_path)), bigram_policies.prompts(kind), sampling)
    # "The result is 5" without its end
    assert {len(ids) for ids in completion_ids} == {answer.tokens for answer in ours} == {4}
    [clipped] = trainer._metrics["train"]["completions/clipped_ratio"]
    assert clipped == 1.0
    assert all(answer.truncated for answer in ours)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_expert_traces_end_as_sampled_answers_end(kind: Kind, tmp_path) -> None:
    bigram_policies.save_policy(kind, tmp_path)
    model, tokenizer = load_policy(str(tmp_path))
    kwargs = rollout_sampling(kind.trl).chat_template_kwargs
    prompt = bigram_policies.prompts(kind)[0]
    stops = stop_ids(tokenizer, model.generation_config)
    ids = trace_ids(tokenizer, prompt, "The result is 5", stops, kwargs)
    assert tokenizer.convert_ids_to_tokens(ids[-1]) in (kind.end, "</s>")
    assert ids[-1] in stops
    # The template writes the end token of a turn, and not always the tokenizer's.
    if kind.chat:
        assert tokenizer.convert_ids_to_tokens(ids[-1]) == kind.end
    assert not set(ids[:-1]) & set(stops)
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "The result is 5"


def test_greedy_answers_draw_nothing_whatever_the_folder_says(tmp_path) -> None:
    kind = kind_of("top_k and temperature in the folder")
    bigram_policies.save_policy(kind, tmp_path)
    prompts = bigram_policies.prompts(kind)
    sampling = Sampling(temperature=0, max_new_tokens=32)
    texts = [answer.text for answer in sample(*load_policy(str(tmp_path)), prompts, sampling)]
    assert set(texts) == {"The result is 5"}


def test_backends_that_do_not_read_the_folder_are_evaluated_without_it(tmp_path) -> None:
    kind = kind_of("min_p in the folder")
    bigram_policies.save_policy(kind, tmp_path)
    model, tokenizer = load_policy(str(tmp_path))
    prompts = bigram_policies.prompts(kind)
    shares = []
    for options in ({}, {"use_transformers_continuous_batching": True}, {"use_vllm": True}):
        sampling = rollout_sampling({**SETTINGS, **options})
        answers = sample(model, tokenizer, prompts, sampling)
        shares.append(sum(answer.text.endswith("5") for answer in answers) / len(answers))
    # .6 over 60 answers: sd .063
    assert shares == [1.0, pytest.approx(0.6, abs=0.25), pytest.approx(0.6, abs=0.25)]
    assert model.generation_config.min_p == 0.8


def test_the_digest_is_of_texts_and_of_ids_where_texts_cannot_tell(tmp_path) -> None:
    """sha256 of the texts, as in run folders of earlier versions."""
    digests = {}
    for name in ("own pad", "BOS by tokenizer", "Metaspace"):
        kind = kind_of(name)
        tokenizer = bigram_policies.build_tokenizer(kind)
        prompts = bigram_policies.prompts(kind)
        texts = [prompt_text(tokenizer, prompt) for prompt in prompts]
        of_texts = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
        digests[name] = prompts_digest(tokenizer, prompts) == of_texts
    assert digests == {"own pad": True, "BOS by tokenizer": True, "Metaspace": False}
    assert prompt_text(tokenizer, "q1") == "<s>q1"


def test_an_evaluation_records_what_earlier_ones_did_not_know() -> None:
    records = {}
    for kind in KINDS:
        tokenizer = bigram_policies.build_tokenizer(kind)
        if kind.pad is None:
            tokenizer.pad_token = tokenizer.eos_token
        model = bigram_policies.build_model(kind, tokenizer)
        about = record(tokenizer, model.generation_config, rollout_sampling(kind.trl))
        if about:
            records[kind.name] = about
    assert records == {
        "two eos, own pad": {"stop_ids": [3, 5]},
        "two eos, pad == eos": {"stop_ids": [3, 5]},
        "two eos, pad is the second": {"stop_ids": [3, 5]},
        "chat kwargs": {"chat_template_kwargs": {"sure": True}},
        "response template": {"response": "parsed"},
        "repetition_penalty in the folder": {"settings": {"repetition_penalty": 1.0}},
        "min_p in the folder": {"settings": {"min_p": 0.8}},
        "min_p in the folder, neutral": {"settings": {"min_p": 0.8}},
        "suppress_tokens in the folder": {"settings": {"suppress_tokens": [16]}},
        "top_k in trl": {"settings": {"top_k": 1}},
        "min_p in trl": {"settings": {"min_p": 0.8}},
        "repetition_penalty in trl": {"settings": {"repetition_penalty": 3.0}},
        "generation_kwargs in trl": {"settings": {"typical_p": 0.1}},
    }


def test_settings_that_act_in_silence_are_told() -> None:
    kind = kind_of("suppress_tokens in the folder")
    config = bigram_policies.build_model(kind, bigram_policies.build_tokenizer(kind))
    generation_config = config.generation_config
    [warning] = sampling_warnings({}, generation_config, config.config)
    assert "suppress_tokens [16]" in str(warning)
    assert "policy.generation_config=neutral" in str(warning)
    assert sampling_warnings({}, neutral_config(generation_config), config.config) == []
    # What the user sets anew is known to be in force.
    replaced = {"generation_kwargs": {"suppress_tokens": [3]}}
    assert sampling_warnings(replaced, generation_config, config.config) == []
    dropout = GPT2Config(attn_pdrop=0.1, resid_pdrop=0, embd_pdrop=0)
    [warning] = sampling_warnings({}, None, dropout)
    assert "attn_pdrop 0.1" in str(warning)
    assert sampling_warnings({"disable_dropout": True}, None, dropout) == []
    vllm = {"use_vllm": True, "generation_kwargs": '{"stop": ["x"], "typical_p": 0.9}'}
    [warning] = sampling_warnings(vllm, generation_config, None)
    assert "vLLM samples rollouts by stop," in str(warning)


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_return_sequences", 2), ("stop_strings", ["7"]), ("return_dict_in_generate", True)],
)
def test_settings_under_which_trl_fails_are_refused(name: str, value, tmp_path) -> None:
    kind = replace(kind_of("own pad"), generation={name: value})
    bigram_policies.save_policy(kind, tmp_path)
    model, tokenizer = load_policy(str(tmp_path))
    arguments = CritiqueGRPOConfig(output_dir=str(tmp_path / "out"), **SETTINGS)
    rows = Dataset.from_list([{"prompt": prompt} for prompt in bigram_policies.prompts(kind)])
    with pytest.raises(ValueError, match=f"{name} .*policy.generation_config to neutral"):
        CritiqueGRPOTrainer(model, zero, arguments, rows, processing_class=tokenizer)
    neutral = neutral_config(model.generation_config)
    assert getattr(neutral, name) is None


def test_a_tokenizer_without_an_end_is_refused() -> None:
    tokenizer = bigram_policies.build_tokenizer(kind_of("own pad"))
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no end token"):
        stop_ids(tokenizer, None)
