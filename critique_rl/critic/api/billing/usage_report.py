"""The `usage` of an answer, which servers write in many ways, read as billed token counts.

Counts may come as numbers, as texts, or not at all. Thoughts may stand outside of the completion.
What a server leaves out is filled from the request's reservation, so that no shape of a report
makes an answer cheaper than it was. Routers add what they charged, in dollars.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from critique_rl.types import Usage

PROMPT_NAMES = ("prompt_tokens", "input_tokens")
COMPLETION_NAMES = ("completion_tokens", "output_tokens")
"""Names of the counts: OpenAI's chats, and the Responses interface and Anthropic's."""
MAX_COST = 1_000.0
"""US dollars that an answer may plausibly cost. More would use up the caps by one wrong report."""
NUMBER = re.compile(r"\d{1,18}(\.\d{1,18})?")


@dataclass(frozen=True)
class PartialUsage:
    """A report that lacks a count; None stands for each one that is missing."""

    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None

    def fill(self, most: Usage) -> Usage:
        """The usage with what is missing taken from the reservation, marked as estimated.

        Args:
            most: what was reserved for the request.

        Returns:
            At least `total_tokens` in all. A total alone is split the dearer way: as many tokens of
            the answer as it may have.
        """
        total = self.total_tokens
        prompt_tokens = self.prompt_tokens
        completion_tokens = self.completion_tokens
        if completion_tokens is None:
            completion_tokens = most.completion_tokens
            if total is not None:
                completion_tokens = min(completion_tokens, max(total - (prompt_tokens or 0), 0))
        if prompt_tokens is None:
            prompt_tokens = most.prompt_tokens
            if total is not None:
                prompt_tokens = min(prompt_tokens, max(total - completion_tokens, 0))
        if total is not None:
            completion_tokens = max(completion_tokens, total - prompt_tokens)
        return Usage(prompt_tokens, completion_tokens, estimated=1)


def parse_usage(counts: Any) -> Usage | None:
    """Token counts as the server bills them; None if one of them is missing.

    A total above prompt + completion holds thoughts that some servers leave out of the completion,
    and so do more thoughts than tokens of the completion. They are billed as completion tokens.
    The price is the one that the server charged, 0 if it names none.
    """
    if not isinstance(counts, Mapping):
        return None
    prompt_tokens = _first_count(counts, PROMPT_NAMES)
    completion_tokens = _completion_tokens(counts)
    # No prompt has 0 tokens: such a count is missing.
    if not prompt_tokens or completion_tokens is None:
        return None
    total = token_count(counts.get("total_tokens"))
    if total is not None:
        completion_tokens = max(completion_tokens, total - prompt_tokens)
    cached = _detail(counts, "prompt_tokens_details", "cached_tokens")
    # A server that reports more cached tokens than prompt tokens would get a negative price.
    return Usage(
        prompt_tokens,
        completion_tokens,
        usd=_charged_dollars(counts),
        cached_prompt_tokens=min(cached or 0, prompt_tokens),
    )


def parse_partial(counts: Any) -> PartialUsage | None:
    """A report that lacks a count; None if it has none above 0."""
    if not isinstance(counts, Mapping):
        return None
    partial = PartialUsage(
        _first_count(counts, PROMPT_NAMES) or None,
        _completion_tokens(counts) or None,
        token_count(counts.get("total_tokens")) or None,
    )
    if partial == PartialUsage(None, None, None):
        return None
    return partial


def token_count(value: Any) -> int | None:
    """A count of tokens, rounded up; None for what is none, such as a negative number."""
    # JSON's true is an int in Python.
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        if not NUMBER.fullmatch(value.strip()):
            return None
        value = float(value) if "." in value else int(value)
    if not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value < 0:
        return None
    return math.ceil(value)


def _charged_dollars(counts: Mapping[str, Any]) -> float:
    """OpenRouter's `cost`, in US dollars; 0.0 for none, and for one that cannot be."""
    cost = counts.get("cost")
    if isinstance(cost, bool) or not isinstance(cost, int | float):
        return 0.0
    # NaN is in no range.
    if not 0 < cost <= MAX_COST:
        return 0.0
    return cost


def _completion_tokens(counts: Mapping[str, Any]) -> int | None:
    completion_tokens = _first_count(counts, COMPLETION_NAMES)
    thoughts = _detail(counts, "completion_tokens_details", "reasoning_tokens")
    if thoughts is None:
        return completion_tokens
    # A part is no larger than the sum: thoughts above it are not in it.
    if completion_tokens is None or thoughts > completion_tokens:
        return thoughts + (completion_tokens or 0)
    return completion_tokens


def _first_count(counts: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        count = token_count(counts.get(name))
        if count is not None:
            return count
    return None


def _detail(counts: Mapping[str, Any], section: str, name: str) -> int | None:
    details = counts.get(section)
    if not isinstance(details, Mapping):
        return None
    return token_count(details.get(name))
