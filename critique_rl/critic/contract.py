"""What a critic is, what a chat is, and what comes back from one."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from typing import Literal, Protocol

from critique_rl.types import Attempt, Critique, Message, Usage


class Critic(Protocol):
    """One method to write: critiques of failed attempts, one each, in order."""

    name: str

    def critique(self, attempts: Sequence[Attempt]) -> list[Critique]: ...


class Chat(Protocol):
    """Answers conversations with one reply each, in order (`chat`)."""

    def answer(self, conversations: Sequence[list[Message]]) -> list[Reply]: ...


OPENS, CLOSES = r"(?:<think(?:ing)?\s*>|\[THINK\])", r"(?:</think(?:ing)?\s*>|\[/THINK\])"
"""How models mark their thoughts: Qwen and DeepSeek, some others, Mistral."""

NO_TEXT = ("empty", "length")
"""Reasons of answers that came, and hold nothing usable: the model's doing, not the server's."""


@dataclass(frozen=True)
class Reply:
    """One answer, or the reason why there is none. An answer cut at max_tokens is "ok" with the
    reason "length" where its text is usable.
    """

    text: str
    status: Literal["ok", "failed", "skipped"] = "ok"
    """failed: asked for and not got; skipped: never sent."""
    reason: str = ""
    """failed: "timeout", "step deadline", "connection", "empty", "length", "bad response: ...",
    "http 401: <the server's words>", "storage: ...". skipped: "budget", "rate limit", "circuit
    open", "step deadline", or the refusal after which nothing more was sent, as "not sent after
    http 401: ...".
    """
    usage: Usage = field(default_factory=Usage)
    """Of all tries that came to an answer, as the server reported it; at its most (`estimated`)
    where it reported none. A try that ended without an answer counts in the ledger alone.
    """
    cached: bool = False
    """True where it was answered before, and paid for then."""


class CriticFailed(RuntimeError):
    """A critic that may not fail did (`on_failure: stop`). `replies` are what came until then, one
    a conversation.
    """

    def __init__(self, message: str, replies: Sequence[Reply] = ()):
        super().__init__(message)
        self.replies = list(replies)


def without_thinking(text: str) -> str:
    """The text after a reasoning model's thoughts; "" where it was cut while thinking. Some
    templates open the thoughts in the prompt.

    Thoughts open at the start of a line; a mark that is only spoken of within one stays, and costs
    nothing of the text after it.
    """
    text = re.sub(rf"(?is){OPENS}.*?{CLOSES}", "", text)
    text = re.split(f"(?i){CLOSES}", text)[-1]
    return re.sub(rf"(?ism)^\s*{OPENS}.*", "", text).strip()


def invalid_field(said: Critique) -> str:
    """The first field of a critique built by somebody else's code that cannot be, "" where all can."""
    if said.status not in ("ok", "failed", "skipped"):
        return f"status {said.status!r}"
    if not isinstance(said.notes, tuple):
        return f"notes is a {type(said.notes).__name__}"
    for name, value in (
        ("text", said.text),
        ("reason", said.reason),
        *(("note", note) for note in said.notes),
    ):
        if not isinstance(value, str):
            return f"{name} is a {type(value).__name__}"
    if not isinstance(said.usage, Usage):
        return f"usage is a {type(said.usage).__name__}"
    counts = astuple(said.usage)
    if not all(
        isinstance(count, int | float) and math.isfinite(count) and count >= 0 for count in counts
    ):
        return f"usage is {counts}"
    return ""
