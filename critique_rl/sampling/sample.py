"""Sampled answers of a transformers model, in batches, for evaluations and for critics in process.

The random state is restored afterwards: sampling in the middle of a run changes nothing that
follows in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from critique_rl.sampling.prefill import can_share, shared_cache
from critique_rl.sampling.settings import Sampling, generation_settings, neutral_config, stop_ids
from critique_rl.sampling.tokens import (
    NO_KWARGS,
    Prompt,
    completions_of,
    content_of,
    is_truncated,
    prompt_ids,
    until_stop,
)


@dataclass(frozen=True)
class Sample:
    """One sampled answer."""

    prompt: int
    """Index of its prompt."""
    text: str
    """The answer as rewards read it: without special tokens, and parsed where TRL parses it."""
    tokens: int
    """Its length in tokens, the end token included."""
    truncated: bool = False
    """True if it reached `max_new_tokens` without an end token."""
    ids: Sequence[int] = ()
    """Its tokens, the end token included."""
    prompt_ids: Sequence[int] = ()
    """Tokens of its prompt."""


@contextmanager
def _isolated_randomness(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


@contextmanager
def _evaluating(model: Any, reads_folder: bool) -> Iterator[None]:
    """Within the block dropout is off, and the folder's settings are those in force."""
    was_training = model.training
    stored = model.generation_config
    model.train(False)
    if not reads_folder:
        model.generation_config = neutral_config(stored)
    try:
        yield
    finally:
        model.train(was_training)
        if not reads_folder:
            model.generation_config = stored


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    seed: int = 0,
) -> list[Sample]:
    """One answer per prompt, in order; repeat a prompt for more answers.

    Args:
        model: the model; its training mode is restored afterwards.
        tokenizer: its tokenizer, with a pad token.
        prompts: texts or conversations.
        sampling: decoding settings.
        seed: seed of the draws; torch's random state is restored afterwards.
    """
    ids = prompt_ids(tokenizer, prompts, sampling.chat_template_kwargs)
    # Sorted by length, so that a batch holds little padding.
    by_length = sorted(range(len(prompts)), key=lambda i: len(ids[i]))
    samples: dict[int, Sample] = {}
    stops = stop_ids(tokenizer, model.generation_config)
    pad: Any = tokenizer.pad_token_id
    settings = generation_settings(sampling, tokenizer, stops)
    shares_prompts = can_share(model, sampling)
    with _evaluating(model, sampling.reads_folder), _isolated_randomness(seed):
        for start in range(0, len(by_length), sampling.batch):
            chunk = by_length[start : start + sampling.batch]
            chunk_ids = [ids[i] for i in chunk]
            answers = _generate(model, chunk_ids, settings, stops, shares_prompts)
            chunk_prompts = [prompts[i] for i in chunk]
            completions = completions_of(tokenizer, chunk_prompts, chunk_ids, answers)
            for i, answer, completion in zip(chunk, answers, completions, strict=True):
                truncated = is_truncated(answer, stops, pad)
                text = content_of(completion)
                samples[i] = Sample(i, text, len(answer), truncated, answer, ids[i])
    return [samples[i] for i in range(len(prompts))]


def _generate(
    # Any: transformers annotates no `generate` on PreTrainedModel.
    model: Any,
    prompts: Sequence[Sequence[int]],
    settings: Mapping[str, Any],
    stops: Sequence[int],
    shares_prompts: bool,
) -> list[list[int]]:
    """Ids of one answer per prompt, from one `generate` call.

    Args:
        model: the model.
        prompts: ids of each prompt.
        settings: arguments of `GenerationConfig`.
        stops: ids that end an answer.
        shares_prompts: whether equal prompts are read once; see `can_share`.
    """
    places = {tuple(ids): 0 for ids in prompts}
    for place, ids in enumerate(places):
        places[ids] = place
    row_prompts = [places[tuple(ids)] for ids in prompts]
    longest = max(len(ids) for ids in places)
    padded = []
    attention = []
    for ids in places:
        gap = longest - len(ids)
        padded.append([settings["pad_token_id"]] * gap + list(ids))
        attention.append([0] * gap + [1] * len(ids))
    input_ids = torch.tensor(padded, device=model.device)
    attention_mask = torch.tensor(attention, device=model.device)
    inputs: dict[str, Any] = {}
    # The last token of a prompt is read with its answer, so a prompt of one token has no cache.
    if shares_prompts and longest > 1 and len(places) < len(prompts):
        cache = shared_cache(model, input_ids, attention_mask, row_prompts)
        inputs["past_key_values"] = cache
    output = model.generate(
        input_ids=input_ids[row_prompts],
        attention_mask=attention_mask[row_prompts],
        generation_config=GenerationConfig(**settings, disable_compile=True),
        **inputs,
    )
    return [until_stop(row, stops) for row in output[:, longest:].tolist()]


def prompt_lengths(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    chat_template_kwargs: Mapping[str, Any] = NO_KWARGS,
) -> list[int]:
    """Tokens per prompt, as `sample` renders it."""
    return [len(ids) for ids in prompt_ids(tokenizer, prompts, chat_template_kwargs)]
