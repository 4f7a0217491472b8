"""One request of a call."""

from __future__ import annotations

import asyncio

from critique_rl.critic.api.client import _body
from critique_rl.critic.api.failures import NotSent, without_key
from critique_rl.critic.api.response import BadResponse, read
from critique_rl.critic.api.step import Call
from critique_rl.types import Usage


async def _try(call: Call, factor: float) -> tuple[str, str]:
    """(text, finish reason) of one request."""
    from openai import APIStatusError

    step, endpoint, usage = call.step, call.step.endpoint, None
    most = endpoint.most(call.messages, factor)
    await _may_send(call, most)
    try:
        async with asyncio.timeout(endpoint.attempt_deadline):
            body = await _body(step.client, endpoint.request(call.messages, call.sample, factor))
        text, finish, reported = read(body)
        usage = endpoint.counted(reported, most, len(body))
    except (BadResponse, APIStatusError) as error:
        refused = (
            error.status_code is not None and error.status_code < 500
        )  # a gateway's 504 may hide an answer that is billed
        reported = Usage() if refused else getattr(error, "usage", None)
        usage = (
            endpoint.priced(reported)
            if reported is not None and endpoint.believes(reported, most)
            else None
        )
        raise
    finally:
        if usage is not None:
            step.ledger.settle(most, usage)
            step.limits.give_back(
                most.prompt_tokens
                + most.completion_tokens
                - usage.prompt_tokens
                - usage.completion_tokens
            )
            call.spent.append(usage)
    # Only now: JSON may spell the key with escapes.
    return without_key(text, step.client.api_key), finish


async def _may_send(call: Call, most: Usage) -> None:
    """Wait for the rates' next free moment and reserve the money; NotSent where either is not to be
    had. The call's deadline starts after its first wait.
    """
    step, loop = call.step, asyncio.get_running_loop()
    until = call.clock.when()
    left = step.left() if until is None else min(step.left(), until - loop.time())
    if not await step.limits.pace(most.prompt_tokens + most.completion_tokens, left):
        raise NotSent("rate limit")
    if until is None:
        call.clock.reschedule(loop.time() + step.endpoint.deadline)
    if step.refused and not call.sent:
        raise NotSent(step.refused)
    if not step.ledger.reserve(most):
        raise NotSent("budget")
    call.sent = True
