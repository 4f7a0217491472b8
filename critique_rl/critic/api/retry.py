"""Which wait stands between the tries of a call, and when they end."""

from __future__ import annotations

import math
import random
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from critique_rl.critic.api.attempt import _try
from critique_rl.critic.api.failures import heals
from critique_rl.critic.api.step import Call

if TYPE_CHECKING:
    from tenacity import RetryCallState

JITTER = random.Random()
"""Of its own: Python's shared one is part of a run's exact continuation."""


async def _tries(call: Call, factor: float = 1.0) -> tuple[str, str]:
    from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, stop_before_delay

    endpoint = call.step.endpoint
    # A wait past the deadline could only end as "timeout"; stopping before it keeps the server's
    # reason.
    stop = stop_after_attempt(endpoint.attempts) | stop_before_delay(
        min(endpoint.deadline, call.step.left())
    )
    async for attempt in AsyncRetrying(
        retry=retry_if_exception(heals), wait=wait, stop=stop, reraise=True
    ):
        with attempt:
            return await _try(call, factor)


def wait(state: RetryCallState) -> float:
    """Seconds until the next try: what the server asked for, else random and growing; with jitter,
    so that many calls do not come back together.
    """
    response = getattr(state.outcome.exception(), "response", None)
    asked = retry_after(response.headers.get("retry-after", "")) if response is not None else None
    return (
        JITTER.uniform(0, min(20.0, 0.5 * 2**state.attempt_number))
        if asked is None
        else asked + JITTER.uniform(0, 0.25)
    )


def retry_after(value: str) -> float | None:
    """Seconds from a Retry-After header, a number or a date; None where it is neither."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
