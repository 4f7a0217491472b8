"""Sampled answers of a transformers model, in batches, for evaluations and for critics in process.

The random state is restored afterwards: sampling in the middle of a run changes nothing that
follows in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from critique_rl.types import Message

Prompt = str | list[Message]
"""A text, or a conversation."""


@dataclass(frozen=True)
class Sampling:
    """Decoding settings. Two evaluations are comparable only if these are the same."""

    temperature: float = 1.0
    """Divides the logits; 0 decodes greedily."""
    top_p: float = 1.0
    """Probability mass that tokens are sampled from, 0 to 1."""
    max_new_tokens: int = 96
    """Longest answer, in tokens."""
    batch: int = 512
    """Sequences per `generate` call."""


@dataclass(frozen=True)
class Sample:
    """One sampled answer."""

    prompt: int
    """Index of its prompt."""
    text: str
    """The answer without special tokens."""
    tokens: int
    """Its length in tokens, the end token included."""
    truncated: bool = False
    """True if it reached `max_new_tokens` without an end token."""


@contextmanager
def _isolated_randomness(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> str:
    """A prompt as the policy reads it in TRL's rollouts.

    Args:
        tokenizer: the policy's tokenizer.
        prompt: a text or a conversation, which the chat template renders.
    """
    # `str`: the annotations of transformers also allow for batches.
    if isinstance(prompt, str):
        # Tokens that the tokenizer puts before every text, such as <s>. They become text here,
        # because `sample` tokenizes without special tokens.
        start = str(tokenizer.decode(tokenizer("")["input_ids"]))
        return start + prompt
    return str(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False))


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
    texts = [render_prompt(tokenizer, prompt) for prompt in prompts]
    # Sorted by length, so that a batch holds little padding.
    by_length = sorted(range(len(prompts)), key=lambda i: len(texts[i]))
    samples: dict[int, Sample] = {}
    was_training = model.training
    model.train(False)
    with _isolated_randomness(seed):
        for start in range(0, len(by_length), sampling.batch):
            chunk = by_length[start : start + sampling.batch]
            answers = _generate(model, tokenizer, [texts[i] for i in chunk], sampling)
            for i, (text, tokens, truncated) in zip(chunk, answers, strict=True):
                samples[i] = Sample(i, text, tokens, truncated)
    model.train(was_training)
    return [samples[i] for i in range(len(prompts))]


def _generate(
    # Any: transformers annotates no `generate` on PreTrainedModel.
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    sampling: Sampling,
) -> list[tuple[str, int, bool]]:
    """(text, tokens, truncated) of one answer per text, from one `generate` call."""
    inputs = tokenizer(
        texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
    ).to(model.device)
    output = model.generate(
        **inputs,
        do_sample=sampling.temperature > 0,
        temperature=sampling.temperature or None,
        top_p=sampling.top_p,
        # 0 switches it off; transformers would keep the 50 likeliest tokens.
        top_k=0,
        max_new_tokens=sampling.max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    answers_BT = output[:, inputs["input_ids"].shape[1] :]
    answers = tokenizer.batch_decode(answers_BT, skip_special_tokens=True)
    lengths = (answers_BT != tokenizer.pad_token_id).sum(1).tolist()
    # A finished answer ends with its end token in the longest row, with padding in the others.
    ends = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    truncated = [last not in ends for last in answers_BT[:, -1].tolist()]
    return list(zip(answers, lengths, truncated, strict=True))


def prompt_lengths(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> list[int]:
    """Tokens per prompt, as `sample` renders it."""
    lengths = []
    for prompt in prompts:
        text = render_prompt(tokenizer, prompt)
        lengths.append(len(tokenizer(text, add_special_tokens=False)["input_ids"]))
    return lengths
