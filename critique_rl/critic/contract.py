"""The contract of a critic: what the trainer asks of one, what a chat answers, how calls fail.

A critic turns failed attempts into critiques. A chat turns conversations into replies; `ChatCritic`
is the critic that asks a chat. Left out: rewards. A critic never sets one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from typing import Literal, Protocol

from critique_rl.critic.thoughts import UNCLEAR_THOUGHTS, Cleaned
from critique_rl.critic.thoughts import without_thinking as without_thinking
from critique_rl.prompts import TOO_LONG
from critique_rl.types import Attempt, Critique, Message, Usage

Status = Literal["ok", "failed", "skipped"]

NO_TEXT_REASONS = (
    "empty",
    "length",
    "content_filter",
    "refusal",
    "tool_call",
    UNCLEAR_THOUGHTS,
    TOO_LONG,
)
"""Reasons of answers that arrived without usable text: a fault of the model, not of the server."""


class Critic(Protocol):
    """Writes critiques of failed attempts: a name, and one method."""

    # Read-only, so that a frozen dataclass is a critic too.
    @property
    def name(self) -> str: ...

    def critique(self, attempts: Sequence[Attempt]) -> list[Critique]:
        """Critiques of the attempts, one each, in order. Never raises for a single attempt."""


class Chat(Protocol):
    """Answers conversations (`chat` has the three kinds)."""

    def answer(self, conversations: Sequence[list[Message]]) -> list[Reply]:
        """Replies to the conversations, one each, in order."""


@dataclass(frozen=True)
class Reply:
    """One answer, or the reason why there is none. An answer with usable text is "ok". Its reason
    is "length" if it was cut at max_tokens, "finish_missing" if the server gave no finish reason,
    and "finish_unknown: <the server's word>" for one that no known server gives.
    """

    text: str
    status: Status = "ok"
    """failed: a request was sent and brought no answer. skipped: no request was sent."""
    reason: str = ""
    """failed: "timeout", "step deadline", "connection", "empty", "length", "content_filter",
    "refusal", "tool_call", "unclear_thoughts", "bad response: ...",
    "prompt_too_long: <the server's words>",
    "http 401: <the server's words>", "storage: ...". skipped: "budget", "rate limit", "circuit
    open", "step deadline", or "not sent after http 401: ..." once a refusal ended the step.
    """
    usage: Usage = field(default_factory=Usage)
    """Sum over all attempts that brought an answer, as the server reported it. An answer without a
    credible report counts at its reservation (`estimated`). Attempts without an answer count in the
    ledger alone.
    """
    cached: bool = False
    """True if the answer was read from the cache: an earlier call paid for it."""
    model: str = ""
    """The model that the answer names if it is not the one asked for ("none named": no name); "" if
    it is.
    """

    @property
    def unanswered(self) -> bool:
        """Whether no answer arrived. An answer without usable text arrived."""
        return self.status != "ok" and self.reason not in NO_TEXT_REASONS


class CriticFailed(RuntimeError):
    """A critic failed that must not fail (`on_failure: stop`, or its ledger cannot be read).

    Args:
        message: what failed.
        replies: the replies of the step so far, one per conversation.
    """

    def __init__(self, message: str, replies: Sequence[Reply] = ()) -> None:
        super().__init__(message)
        self.replies = list(replies)


def read_answer(answer: Cleaned, is_cut: bool, usage: Usage) -> Reply:
    """The reply of a model in this process, as a server's is read.

    Args:
        answer: the answer without its thoughts (`thoughts.sampled_answer`).
        is_cut: whether the answer met its longest length.
        usage: its cost.
    """
    reason = "length" if is_cut else ""
    if answer.text:
        return Reply(answer.text, reason=reason, usage=usage)
    return Reply("", "failed", answer.reason or reason or "empty", usage)


def invalid_field(critique: Critique) -> str:
    """Name the first invalid field of a critique that user code built; "" if all are valid.

    Annotations bind nothing at run time, so every field may hold any value.
    """
    if critique.status not in ("ok", "failed", "skipped"):
        return f"status {critique.status!r}"
    if not isinstance(critique.notes, tuple):
        return f"notes is a {type(critique.notes).__name__}"
    texts = [("text", critique.text), ("reason", critique.reason)]
    texts += [("note", note) for note in critique.notes]
    for name, value in texts:
        if not isinstance(value, str):
            return f"{name} is a {type(value).__name__}"
    if not isinstance(critique.usage, Usage):
        return f"usage is a {type(critique.usage).__name__}"
    # One NaN or infinity would spoil every sum of tokens and dollars from this step on.
    counts = astuple(critique.usage)
    if not all(_is_count(count) for count in counts):
        # Without `excess_tokens`, which is last: user code has no ledger.
        return f"usage is {counts[:-1]}"
    return ""


def _is_count(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0
