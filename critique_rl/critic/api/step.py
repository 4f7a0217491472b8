"""What the calls of one step share, and what one call knows."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from critique_rl.critic.api.cache import Cache
from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.api.failures import for_all, heals
from critique_rl.critic.api.ledger import Ledger
from critique_rl.critic.api.limits import Limits
from critique_rl.critic.contract import NO_TEXT_REASONS, Reply
from critique_rl.types import Message, Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI

MOST_REFUSALS = 3


@dataclass
class Step:
    """What the calls of one step share."""

    endpoint: Endpoint
    client: AsyncOpenAI
    cache: Cache | None
    ledger: Ledger
    limits: Limits
    turns: asyncio.Semaphore
    end: float
    """On the loop's clock."""
    answered: bool = False
    refusals: int = 0
    refused: str = ""
    """Why nothing more is sent."""

    def left(self) -> float:
        return max(0.0, self.end - asyncio.get_running_loop().time())

    def note(self, reply: Reply, error: Exception | None) -> None:
        """Learn from what became of a call whether the others are worth sending."""
        self.answered |= reply.status == "ok"
        status = getattr(error, "status_code", None)
        self.refusals += status is not None and not heals(error)
        hopeless = for_all(error) or (self.refusals >= MOST_REFUSALS and not self.answered)
        if hopeless or (
            self.endpoint.on_failure == "stop"
            and reply.status != "ok"
            and reply.reason not in NO_TEXT_REASONS
        ):
            self.refused = self.refused or f"not sent after {reply.reason}"


@dataclass
class Call:
    """One conversation."""

    step: Step
    messages: list[Message]
    sample: int
    """Number of this answer among those to the same conversation."""
    clock: asyncio.Timeout = field(default_factory=lambda: asyncio.timeout(None))
    spent: list[Usage] = field(default_factory=list)
    admitted: bool = False
    sent: bool = False
    cut: str = ""
    """The text of an answer that was cut, should a longer one not come."""
