"""Retries of a call: which failures get another request, after which wait, and how often.

Up to `attempts` requests, as long as the failure may pass (`failures.is_transient`). The wait is
the one that the server asks for, else a random one that grows. The rest of the call's deadline
bounds both. No clock on a wall is read: a date is compared with the Date of the same response.
"""

from __future__ import annotations

import json
import math
import random
import re
from email.utils import mktime_tz, parsedate_tz
from typing import TYPE_CHECKING

from critique_rl.critic.api.failures import is_transient
from critique_rl.critic.api.request import send_request
from critique_rl.critic.api.response import Answer
from critique_rl.critic.api.step import Call

if TYPE_CHECKING:
    from httpx2 import Headers
    from tenacity import RetryCallState

# Not Python's shared generator: its state is part of a run's exact continuation.
JITTER = random.Random()
MAX_WAIT_SECONDS = 20.0
RETRY_AFTER_JITTER_SECONDS = 0.25
MAX_DATE_LENGTH = 64
RETRY_HEADERS = ("retry-after", "llm_provider-retry-after")
"""LiteLLM's proxy renames the header of the provider behind it."""
RETRY_DELAY = re.compile(r'"retryDelay": "(\d{1,6}(?:\.\d{1,9})?)s"')
"""google.rpc.RetryInfo in a list of details."""


async def send_with_retries(call: Call, factor: float = 1.0) -> Answer:
    """Send a call's request until it is answered.

    Args:
        call: the call.
        factor: multiple of max_tokens to ask for.

    Returns:
        The answer.

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
    error = state.outcome.exception()
    response = getattr(error, "response", None)
    wanted = None
    if response is not None:
        wanted = wanted_wait(response.headers)
    if wanted is None:
        wanted = wait_in_body(getattr(error, "body", None))
    # Jitter in both cases, so that many calls do not come back together.
    if wanted is not None:
        return wanted + JITTER.uniform(0, RETRY_AFTER_JITTER_SECONDS)
    return JITTER.uniform(0, min(MAX_WAIT_SECONDS, 0.5 * 2**state.attempt_number))


def wanted_wait(headers: Headers) -> float | None:
    """Seconds that a server asks to wait, the longest of several; None if it asks for none.

    The x-ratelimit-reset headers are not read: they tell when a whole quota is free again.
    """
    date = headers.get("date", "")
    waits = []
    for name in RETRY_HEADERS:
        waits += [parse_retry_after(value, date) for value in headers.get_list(name)]
    for value in headers.get_list("retry-after-ms"):
        milliseconds = parse_retry_after(value)
        if milliseconds is not None:
            waits.append(milliseconds / 1000)
    return max((wait for wait in waits if wait is not None), default=None)


def wait_in_body(body: object) -> float | None:
    """Seconds that the body of a refusal asks to wait, as Gemini writes them; None for none.

    Args:
        body: the refusal's JSON, of any shape.
    """
    text = json.dumps(body, default=str)
    match = RETRY_DELAY.search(text)
    if match is None:
        return None
    return float(match.group(1))


def parse_retry_after(value: str, date: str = "") -> float | None:
    """Seconds from a Retry-After header, a number or a date.

    Args:
        value: the header.
        date: the response's Date header, the server's own clock.

    Returns:
        The seconds, none negative; None if it is neither, or a date without a Date to compare.
    """
    try:
        seconds = float(value)
    except ValueError:
        seconds = _timestamp(value) - _timestamp(date)
    # float() also reads "nan" and "inf", and a date may lie in the past.
    if math.isfinite(seconds):
        return max(seconds, 0.0)
    return None


def _timestamp(date: str) -> float:
    """Seconds of a date in one of HTTP's three formats; NaN if it is none."""
    try:
        parts = parsedate_tz(date[:MAX_DATE_LENGTH])
        if parts is None:
            return math.nan
        # Without a zone, as in asctime's format, it is GMT.
        zone = parts[9] or 0
        return mktime_tz((*parts[:9], zone))
    except (ValueError, TypeError, IndexError, OverflowError):
        # The parser raises any of these for text that only looks like a date.
        return math.nan
