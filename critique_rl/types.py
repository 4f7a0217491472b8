"""The data that passes between the rooms: frozen dataclasses without behaviour.

    question q -> Attempt (rollout y ~ pi(.|q), with its Verdict)
               -> Critique (c, words on a failed y)
               -> Refinement (y' ~ pi(.|q, y, c), with its Verdict)
               -> in further turns: Critique on a failed y', Refinement of that, ...

A few of a group's refinements are `chosen`: they fill its reserved rows and train under q alone.
A *critic* is a model or a rule that writes critiques in words, never PPO's value model. It never
sets a reward: rewards come from verifiers. A critique that failed or was skipped trains nothing.

Rewards, advantages and log-probs are tensors and live in `objective`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field
from typing import Any, Literal, get_args

Message = dict[str, str]
"""One chat message: {"role": "system" | "user" | "assistant", "content": text}."""

Outcome = Literal["right", "wrong", "unreadable", "abstained", "unscored"]
"""The outcomes of a verifier. "unreadable": the text holds no answer. "unscored": the answer could
not be judged (a crash, a step without time, a reward of None). An unscored answer is counted apart,
never as 0.
"""
OUTCOMES = get_args(Outcome)

Span = tuple[int, int]
"""A part of a text: (start, end) in characters, the end excluded."""


class UnknownOutcome(ValueError):
    """A verdict's outcome is none of `OUTCOMES`."""


class NoShare(ValueError):
    """A verdict's confidence is no number from 0 to 1."""


@dataclass(frozen=True)
class Verdict:
    """A verifier's judgement of one answer."""

    outcome: Outcome
    """The judgement, from which the reward follows."""
    answer: str | None = None
    """The answer extracted from the text; None if there is none."""
    reason: str = ""
    """Why the answer is wrong, unreadable or unscored, for logs and tables; "" without a reason."""
    faults: tuple[Span, ...] = ()
    """The wrong parts of the text, from verifiers that locate errors. Only metrics read them: no
    reward and no critic sees them.
    """
    confidence: float | None = None
    """The answer's stated chance of being right, 0 to 1, in tasks that ask for one; else None."""
    details: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """The reason in parts, as JSON: of a test `call`, `got` and `expected`, say. Critics may read
    it; {} of a verifier without parts.
    """

    def __post_init__(self) -> None:
        """Check the outcome.

        Raises:
            UnknownOutcome: it is none of `OUTCOMES`.
            NoShare: the confidence is no number from 0 to 1.
        """
        # A word that no reward knows would count as 0.
        if self.outcome not in OUTCOMES:
            raise UnknownOutcome(
                f"Verdict: got the outcome {self.outcome!r}, expected one of {', '.join(OUTCOMES)}"
            )
        # NaN would be the reward of RLCR, and 40 one of -1600.
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            raise NoShare(f"Verdict: got the confidence {self.confidence!r}, expected 0 to 1")

    @property
    def failed(self) -> bool:
        """True if the attempt is due a critique. Abstained and unscored answers have not failed."""
        # An unscored answer may be right, and an abstention is a choice that has its own reward.
        return self.outcome in ("wrong", "unreadable")


Verifier = Callable[[str, Mapping[str, Any]], Verdict]
"""Judges one answer: (text of the completion, row of the dataset) -> verdict."""


@dataclass(frozen=True)
class Attempt:
    """One answer to one question, with its verdict: a rollout as critics read it."""

    question: str
    """The question, as the dataset's row gives it."""
    text: str
    """The completion, without the prompt."""
    verdict: Verdict
    """The verifier's judgement of `text`."""
    row: Mapping[str, Any] = field(default_factory=dict)
    """The dataset's columns for this question (answer, family, ...)."""
    truncated: bool = False
    """True if the completion ended at the limit of tokens, not at an end token."""


@dataclass(frozen=True)
class Usage:
    """The cost of one critic call, or the sum over several (`+`)."""

    prompt_tokens: int = 0
    """Tokens that the critic read, as the server counts them."""
    completion_tokens: int = 0
    """Tokens that the critic wrote, as the server counts them."""
    seconds: float = 0.0
    """Wall time in seconds."""
    usd: float = 0.0
    """Price in US dollars."""
    cached_prompt_tokens: int = 0
    """The part of `prompt_tokens` that the server had cached."""
    estimated: int = 0
    """How many answers came with missing or impossible usage. Each is counted at its reserved
    maximum.
    """
    excess_tokens: int = 0
    """Tokens that were billed beyond what was reserved: by a server that does not keep max_tokens,
    or whose template is long.
    """

    def __add__(self, other: Usage) -> Usage:
        """The sum, field by field."""
        return Usage(*map(operator.add, astuple(self), astuple(other)))


@dataclass(frozen=True)
class Critique:
    """A critic's words on one attempt, or the reason why there are none.

    A failed or skipped critique has no text and trains nothing: its attempt keeps the scalar term.
    """

    text: str
    """The words; "" if the critique failed or was skipped."""
    critic: str
    """Name of the critic."""
    status: Literal["ok", "failed", "skipped"] = "ok"
    """"failed": the critic was asked and gave nothing usable. "skipped": it was not asked, had
    nothing to say, or gave the answer away.
    """
    reason: str = ""
    """Why it failed or was skipped: a short code such as "timeout", "http 401", "empty",
    "prompt_too_long". Of a usable one: "other_model: <name>" if another model than the one asked
    for wrote it.
    """
    leaked: bool = False
    """True if the critic gave the answer away. It stays True if the answer was then redacted or the
    critique dropped.
    """
    usage: Usage = Usage()
    """The cost of the call."""
    cached: bool = False
    """True if the text came from the cache, so that no call was made."""
    notes: tuple[str, ...] = ()
    """Further events to count: "attempt_cut", "redacted", "vote_failed", "length", ..."""


@dataclass(frozen=True)
class Refinement:
    """A new answer to a question, written with an attempt and its critique in the prompt.

    It is judged as an answer to the same question. If it is trained, then under the question alone:
    the prompt of the trained row holds neither attempt nor critique.
    """

    attempt: Attempt
    """The failed attempt: a rollout in turn 1, the refinement of the turn before in later ones."""
    critique: Critique
    """The critique that the prompt held."""
    text: str
    """The completion, without the prompt."""
    verdict: Verdict
    """The verifier's judgement of `text` as an answer to the question."""
    chosen: bool = False
    """True if it fills a reserved row of its group."""
    turn: int = 1
    """The turn in which it was sampled, from 1 to `refine_turns`."""
