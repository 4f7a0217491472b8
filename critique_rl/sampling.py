"""Answers of a transformers model to prompts, in batches: for evaluations, and for critics in this
process.

It has a random state of its own, so that sampling in the middle of a run changes nothing that
follows in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from critique_rl.types import Message

Prompt = str | list[Message]


@dataclass(frozen=True)
class Sampling:
    """Decoding settings; they are part of what makes two evaluations comparable."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 96
    batch: int = 512
    """Sequences a `generate` call."""


@dataclass(frozen=True)
class Sample:
    """One sampled answer: the index of its prompt, its text and its length in tokens."""

    prompt: int
    text: str
    tokens: int
    truncated: bool = False
    """True where it did not end by itself."""


@contextmanager
def _isolated_randomness(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> str:
    """A prompt as the policy reads it, and as TRL does: a conversation by the chat template, a text
    as it is, after what the tokenizer begins texts with.
    """
    if isinstance(prompt, str):
        return tokenizer.decode(tokenizer("")["input_ids"]) + prompt
    return tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    seed: int = 0,
) -> list[Sample]:
    """One answer to each prompt (repeat one for more), in order. Restores the model's mode and
    torch's random state.
    """
    texts = [render_prompt(tokenizer, prompt) for prompt in prompts]
    by_length = sorted(range(len(prompts)), key=lambda i: len(texts[i]))
    samples: list[Sample | None] = [None] * len(prompts)
    was_training = model.training
    model.eval()
    with _isolated_randomness(seed):
        for start in range(0, len(by_length), sampling.batch):
            chunk = by_length[start : start + sampling.batch]
            for i, (text, tokens, cut) in zip(
                chunk, _generate(model, tokenizer, [texts[i] for i in chunk], sampling), strict=True
            ):
                samples[i] = Sample(i, text, tokens, cut)
    model.train(was_training)
    return [s for s in samples if s is not None]


def _generate(
    model, tokenizer, texts: list[str], sampling: Sampling
) -> list[tuple[str, int, bool]]:
    inputs = tokenizer(
        texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
    ).to(model.device)
    output = model.generate(
        **inputs,
        do_sample=sampling.temperature > 0,
        temperature=sampling.temperature or None,
        top_p=sampling.top_p,
        top_k=0,
        max_new_tokens=sampling.max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    new = output[:, inputs["input_ids"].shape[1] :]
    lengths = (new != tokenizer.pad_token_id).sum(1).tolist()
    ends = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    cut = [last not in ends for last in new[:, -1].tolist()]
    return list(
        zip(tokenizer.batch_decode(new, skip_special_tokens=True), lengths, cut, strict=True)
    )


def prompt_lengths(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> list[int]:
    """Tokens of each prompt as `sample` renders it."""
    return [
        len(tokenizer(render_prompt(tokenizer, prompt), add_special_tokens=False)["input_ids"])
        for prompt in prompts
    ]
