"""The state of one step, which its calls share, and the state of one call."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from critique_rl.critic.api.cache import Cache
from critique_rl.critic.api.deadlines import CallDeadline, StepDeadline
from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.api.failures import concerns_all_calls, is_transient
from critique_rl.critic.api.ledger import Ledger
from critique_rl.critic.api.limits import Limits
from critique_rl.critic.api.response import Answer, OtherModel
from critique_rl.critic.api.scoring.question import Question
from critique_rl.critic.contract import Reply
from critique_rl.types import Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI

MAX_REFUSALS = 3
"""Permanent refusals after which a step without any answer sends no more. One or two may be about
their prompts.
"""


@dataclass
class Step:
    """The state that the calls of one step share."""

    endpoint: Endpoint
    client: AsyncOpenAI
    cache: Cache | None
    ledger: Ledger
    limits: Limits
    turns: asyncio.Semaphore
    """This process's calls in flight, `concurrency` at most. Its other calls wait here, not polling
    for a slot of the run.
    """
    deadline: StepDeadline
    answered: bool = False
    """Whether any call was answered."""
    refusals: int = 0
    """Permanent refusals so far."""
    refusal: str = ""
    """Why nothing more is sent, "" as long as calls are."""

    def record(self, reply: Reply, error: Exception | None) -> None:
        """Learn from the outcome of a call whether the others are worth sending.

        Args:
            reply: the call's reply.
            error: how it failed; None if it was answered.
        """
        if reply.status == "ok":
            self.answered = True
        status = getattr(error, "status_code", None)
        is_refused = status is not None and error is not None and not is_transient(error)
        # Tried again, for a router may go back to the model; but not for every call of a step.
        if is_refused or isinstance(error, OtherModel):
            self.refusals += 1
        hopeless = self.refusals >= MAX_REFUSALS and not self.answered
        stops = self.endpoint.on_failure == "stop" and reply.unanswered
        if (concerns_all_calls(error) or hopeless or stops) and not self.refusal:
            self.refusal = f"not sent after {reply.reason}"


@dataclass
class Call:
    """One conversation, or one text to score."""

    step: Step
    question: Question
    sample: int
    """Number of this answer among those to the same conversation."""
    deadline: CallDeadline
    spent: list[Usage] = field(default_factory=list)
    """Cost of each of its settled requests."""
    admitted: bool = False
    """Whether the circuit breaker let it pass, and so waits for its outcome."""
    sent: bool = False
    """Whether a request of it was sent."""
    cut: Answer | None = None
    """An answer that was cut at max_tokens, kept in case no longer one comes."""
