"""Completions of one sampling call, as TRL's backends give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from critique_rl.tasks.rewards import text_of


def in_format_of(prompt: Any, text: str) -> Any:
    """A completion's text in its prompt's format: a string, or a list with one message."""
    if isinstance(prompt, str):
        return text
    return [{"role": "assistant", "content": text}]


@dataclass(frozen=True)
class Sampled:
    """One completion per prompt, on this rank."""

    prompt_ids: list[list[int]]
    """Token ids of each prompt."""
    completion_ids: list[list[int]]
    """Token ids of each completion, the end token included where one was sampled."""
    logprobs: list[list[Any]] | None
    """Log-prob of each token when it was sampled, None where unknown. None for backends that
    report none (all but vLLM).
    """
    completions: list[Any]
    """The completions in the format of their prompts."""

    @property
    def texts(self) -> list[str]:
        return [text_of(completion) for completion in self.completions]

    @property
    def completion_lengths(self) -> list[int]:
        """Tokens of each completion."""
        return [len(ids) for ids in self.completion_ids]

    @property
    def prompt_lengths(self) -> list[int]:
        """Tokens of each prompt."""
        return [len(ids) for ids in self.prompt_ids]

    def head(self, count: int) -> Sampled:
        """The first `count` rows."""
        return Sampled(
            self.prompt_ids[:count],
            self.completion_ids[:count],
            None if self.logprobs is None else self.logprobs[:count],
            self.completions[:count],
        )

    def with_inserted(self, rows: Mapping[int, Sampled]) -> Sampled:
        """These rows with others among them.

        Args:
            rows: place in the result -> a `Sampled` of one row, which no policy sampled. Its
                log-probs are None for every token if this one has log-probs.
        """
        prompt_ids = list(self.prompt_ids)
        completion_ids = list(self.completion_ids)
        completions = list(self.completions)
        logprobs = None if self.logprobs is None else list(self.logprobs)
        for place in sorted(rows):
            row = rows[place]
            prompt_ids.insert(place, row.prompt_ids[0])
            completion_ids.insert(place, row.completion_ids[0])
            completions.insert(place, row.completions[0])
            if logprobs is not None:
                logprobs.insert(place, [None] * len(row.completion_ids[0]))
        return Sampled(prompt_ids, completion_ids, logprobs, completions)


def batch_columns(rollouts: Sampled, second: Sampled, order: Sequence[int]) -> dict[str, Any]:
    """What TRL's `rollout_func` returns, in the batch's order.

    A refinement stands under the plain prompt of its group, that of the rollout before it.
    """
    count = len(rollouts.completion_ids)
    completion_ids = rollouts.completion_ids + second.completion_ids
    prompt_ids: list[list[int]] = []
    for number in order:
        prompt_ids.append(rollouts.prompt_ids[number] if number < count else prompt_ids[-1])
    columns = {
        "prompt_ids": prompt_ids,
        "completion_ids": [completion_ids[number] for number in order],
        "logprobs": None,
    }
    if rollouts.logprobs is None:
        return columns
    sampled_prompt_ids = rollouts.prompt_ids + second.prompt_ids
    sampled_logprobs = [*rollouts.logprobs, *(second.logprobs or [])]
    logprobs = []
    for number, prompt in zip(order, prompt_ids, strict=True):
        if sampled_prompt_ids[number] == prompt:
            logprobs.append(sampled_logprobs[number])
        else:
            # It was sampled under another prompt: with None, TRL's correction for vLLM is exactly
            # 1 on its tokens.
            logprobs.append([None] * len(completion_ids[number]))
    return {**columns, "logprobs": logprobs}
