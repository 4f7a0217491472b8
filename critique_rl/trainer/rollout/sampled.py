"""Completions of one sampling call, as TRL's backends give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from critique_rl.tasks.messages import text_of

Row = dict[str, Any]
"""A row of the dataset: its prompt and its other columns."""


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
    def completion_tokens(self) -> int:
        """Tokens of all completions."""
        return sum(len(ids) for ids in self.completion_ids)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(len(ids) for ids in self.prompt_ids)

    def head(self, count: int) -> Sampled:
        """The first `count` rows."""
        logprobs = self.logprobs
        if logprobs is not None:
            logprobs = logprobs[:count]
        return Sampled(
            self.prompt_ids[:count], self.completion_ids[:count], logprobs, self.completions[:count]
        )

    def after(self, count: int) -> Sampled:
        """All rows but the first `count`."""
        logprobs = self.logprobs
        if logprobs is not None:
            logprobs = logprobs[count:]
        return Sampled(
            self.prompt_ids[count:], self.completion_ids[count:], logprobs, self.completions[count:]
        )

    def __add__(self, other: Sampled) -> Sampled:
        """These rows and those of another call of the same backend."""
        logprobs = None
        if self.logprobs is not None and other.logprobs is not None:
            logprobs = self.logprobs + other.logprobs
        return Sampled(
            self.prompt_ids + other.prompt_ids,
            self.completion_ids + other.completion_ids,
            logprobs,
            self.completions + other.completions,
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
        logprobs = list(self.logprobs or [])
        # In rising order, so that each place is already that in the result.
        for place in sorted(rows):
            row = rows[place]
            prompt_ids[place:place] = row.prompt_ids
            completion_ids[place:place] = row.completion_ids
            completions[place:place] = row.completions
            logprobs.insert(place, [None] * row.completion_tokens)
        known = None if self.logprobs is None else logprobs
        return Sampled(prompt_ids, completion_ids, known, completions)


def batch_columns(rollouts: Sampled, second: Sampled, order: Sequence[int]) -> dict[str, Any]:
    """Columns that TRL's `rollout_func` returns, in the batch's order.

    A refinement stands under the plain prompt of its group, that of the rollout before it.

    Args:
        rollouts: sequences of phase 1.
        second: sequences of phase 2.
        order: number of the sequence in each row, counted through both phases.
    """
    count = len(rollouts.completion_ids)
    completion_ids = rollouts.completion_ids + second.completion_ids
    sampled_prompt_ids = rollouts.prompt_ids + second.prompt_ids
    sampled_logprobs = (rollouts.logprobs or []) + (second.logprobs or [])
    plain_prompt: list[int] = []
    prompt_ids = []
    logprobs = []
    for number in order:
        if number < count:
            plain_prompt = rollouts.prompt_ids[number]
        prompt_ids.append(plain_prompt)
        if rollouts.logprobs is None:
            continue
        if sampled_prompt_ids[number] == plain_prompt:
            logprobs.append(sampled_logprobs[number])
        else:
            # It was sampled under another prompt: with None, TRL's correction for vLLM is exactly
            # 1 on its tokens.
            logprobs.append([None] * len(completion_ids[number]))
    columns: dict[str, Any] = {"prompt_ids": prompt_ids, "logprobs": None}
    columns["completion_ids"] = [completion_ids[number] for number in order]
    if rollouts.logprobs is not None:
        columns["logprobs"] = logprobs
    return columns
