"""Retries of a call: which failures get another request, after which wait, and how often.

Up to `attempts` requests, as long as the failure may pass (`failures.is_transient`). The wait is
the one that the server asks for, else a random one that grows. The rest of the call's deadline
bounds both.
"""

from __future__ import annotations

import math
import random
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from critique_rl.critic.api.failures import is_transient
from critique_rl.critic.api.request import send_request
from critique_rl.critic.api.step import Call

if TYPE_CHECKING:
    from tenacity import RetryCallState

# Not Python's shared generator: its state is part of a run's exact continuation.
JITTER = random.Random()
MAX_WAIT_SECONDS = 20.0
RETRY_AFTER_JITTER_SECONDS = 0.25


async def send_with_retries(call: Call, factor: float = 1.0) -> tuple[str, str]:
    """Send a call's request until it is answered.

    Args:
        call: the call.
        factor: multiple of max_tokens to ask for.

    Returns:
        The text without thoughts, and the finish reason.

    Raises:
        Exception: the last failure, of the kinds that `send_request` lists.
    """
    from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, stop_before_delay

    endpoint = call.step.endpoint
    seconds = min(endpoint.deadline, call.step.deadline.seconds_left())
    retrying = AsyncRetrying(
        retry=retry_if_exception(is_transient),
        wait=wait_seconds,
        # A wait past the deadline could only end as "timeout". Stopping before it keeps the
        # server's reason.
        stop=stop_after_attempt(endpoint.attempts) | stop_before_delay(seconds),
        reraise=True,
    )
    return await retrying(send_request, call, factor)


def wait_seconds(state: RetryCallState) -> float:
    """Seconds until the next request."""
    assert state.outcome is not None  # tenacity waits after an outcome only
    response = getattr(state.outcome.exception(), "response", None)
    wanted = None
    if response is not None:
        wanted = parse_retry_after(response.headers.get("retry-after", ""))
    # Jitter in both cases, so that many calls do not come back together.
    if wanted is not None:
        return wanted + JITTER.uniform(0, RETRY_AFTER_JITTER_SECONDS)
    return JITTER.uniform(0, min(MAX_WAIT_SECONDS, 0.5 * 2**state.attempt_number))


def parse_retry_after(value: str) -> float | None:
    """Seconds from a Retry-After header, a number or a date; None if it is neither."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    # float() also reads "nan" and "inf", and a date may lie in the past.
    if math.isfinite(seconds):
        return max(seconds, 0.0)
    return None
