"""One request of a call: wait for the rates, reserve its cost, send it, settle its cost."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from critique_rl.critic.api.client import read_body
from critique_rl.critic.api.failures import NotSent, without_key
from critique_rl.critic.api.response import Answer, BadResponse, OtherModel, parse_response
from critique_rl.critic.api.step import Call
from critique_rl.types import Usage


async def send_request(call: Call, factor: float) -> Answer:
    """Send one request, within `attempt_deadline`.

    Args:
        call: the call; its `spent` grows by what the request cost.
        factor: multiple of max_tokens to ask for.

    Returns:
        The answer, without the key where the server quotes it.

    Raises:
        NotSent: the rates, the caps or a refusal of another call forbid it.
        TimeoutError: no answer in time.
        BadResponse: a response without a usable answer.
        OtherModel: another model answered, and `strict_model` is set.
        openai.APIError: the server refused or could not be reached.
    """
    from openai import APIStatusError

    step = call.step
    endpoint = step.endpoint
    most = endpoint.max_usage(call.messages, factor)
    await _wait_and_reserve(call, most)
    usage = None
    try:
        # The SDK's own timeout starts again with every byte, so a server that trickles would never
        # run into it.
        async with asyncio.timeout(endpoint.attempt_deadline):
            body = await read_body(
                step.client, endpoint.request(call.messages, call.sample, factor)
            )
        answer = parse_response(body)
        if endpoint.strict_model and endpoint.other_model(answer.model):
            raise OtherModel(endpoint.model, answer)
        usage = endpoint.billed_usage(answer.usage, most, len(body))
    except (BadResponse, APIStatusError) as error:
        usage = _usage_of_failure(call, error, most)
        raise
    finally:
        # Without a usage (a deadline, a cut connection, a 5xx) the request may be billed: its
        # reservation stands.
        if usage is not None:
            _settle(call, most, usage)
    # Only now: the JSON of the body may spell the key with escapes.
    key = step.client.api_key
    return replace(
        answer,
        text=without_key(answer.text, key),
        finish_reason=without_key(answer.finish_reason, key),
        model=without_key(answer.model, key),
    )


async def _wait_and_reserve(call: Call, most: Usage) -> None:
    """Wait for the rates, then reserve the money.

    Raises:
        NotSent: the rates or the caps leave no room, or a refusal has ended the step.
    """
    step = call.step
    tokens = most.prompt_tokens + most.completion_tokens
    if not await step.limits.pace(tokens, call.deadline.seconds_left()):
        raise NotSent("rate limit")
    # The rates may hold a call for longer than its deadline, so that starts after the first wait.
    call.deadline.start()
    if step.refusal and not call.sent:
        raise NotSent(step.refusal)
    if not step.ledger.reserve(most):
        raise NotSent("budget")
    call.sent = True


def _usage_of_failure(call: Call, error: Exception, most: Usage) -> Usage | None:
    """The cost of a request whose response held no usable text; None if that is unknown."""
    endpoint = call.step.endpoint
    status = getattr(error, "status_code", None)
    if status is not None and status < 500:
        return endpoint.with_price(Usage())
    # Not so a 5xx: a gateway's 504 may hide an answer that is billed.
    reported: Usage | None = getattr(error, "usage", None)
    if reported is None or not endpoint.is_plausible(reported, most):
        return None
    return endpoint.with_price(reported)


def _settle(call: Call, most: Usage, usage: Usage) -> None:
    reserved = most.prompt_tokens + most.completion_tokens
    used = usage.prompt_tokens + usage.completion_tokens
    call.step.ledger.settle(most, usage)
    call.step.limits.give_back(reserved - used)
    call.spent.append(usage)
