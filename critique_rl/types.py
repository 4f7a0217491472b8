"""The dictionary of the package: what passes between its parts. Frozen data, no behaviour except
derived properties.

A *critic* here is a model or rule that writes critiques in words, never PPO's value model. The
critic never sets a reward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field
from typing import Any, Literal

Message = dict[str, str]
"""One chat message: {"role": "system" | "user" | "assistant", "content": text}."""

Outcome = Literal["right", "wrong", "unreadable", "abstained", "unscored"]
"""What a verifier can say. "unreadable": no answer to be found. "unscored": it could not be judged
(a timeout, a reward of None); never a 0.
"""


@dataclass(frozen=True)
class Verdict:
    """A verifier's judgement of one answer."""

    outcome: Outcome
    answer: str | None = None
    """The answer as extracted from the text, or None."""
    reason: str = ""
    faults: tuple[tuple[int, int], ...] = ()
    """Spans (start, end) of the text that are wrong, in characters, where the verifier can tell;
    metrics alone read them.
    """
    confidence: float | None = None
    """What the answer itself says of how likely it is right, 0 to 1, where the task asks for that.
    """

    @property
    def failed(self) -> bool:
        """True where a critique is due. Abstained and unscored rows are not failed."""
        return self.outcome in ("wrong", "unreadable")


Verifier = Callable[[str, Mapping[str, Any]], Verdict]
"""Judges a completion's text, given the dataset's row."""


@dataclass(frozen=True)
class Attempt:
    """One answer to one question, with its verdict; `row` holds the dataset's columns (answer,
    family, ...).
    """

    question: str
    text: str
    verdict: Verdict
    row: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Usage:
    """What a critic call cost. Tokens as the server counts them, wall seconds, US dollars."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    usd: float = 0.0
    cached_prompt_tokens: int = 0
    """Of the prompt tokens, those the server had cached."""
    estimated: int = 0
    """Answers in it whose server reported no usage that can be: they are counted at what they may
    have cost at most.
    """

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Critique:
    """A critic's words on one attempt, or the reason why there are none. Failed and skipped
    critiques have no text and train nothing.
    """

    text: str
    critic: str
    status: Literal["ok", "failed", "skipped"] = "ok"
    reason: str = ""
    """Why it failed or was skipped: a short code such as "timeout", "http 401", "empty",
    "prompt_too_long".
    """
    leaked: bool = False
    """True where the critic gave the answer away, also where that was then redacted, or the
    critique dropped.
    """
    usage: Usage = Usage()
    cached: bool = False
    notes: tuple[str, ...] = ()
    """What else is worth counting: "attempt_cut", "redacted", "vote_failed", "length", ..."""


@dataclass(frozen=True)
class Refinement:
    """A second answer to the same question, written with the first attempt and its critique in the
    prompt.
    """

    attempt: Attempt
    critique: Critique
    text: str
    verdict: Verdict
    chosen: bool = False
    """True where it fills a reserved slot of its group."""
