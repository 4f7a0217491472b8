"""One request of a call: wait for the rates, reserve its cost, send it, settle its cost."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from critique_rl.config.secrets import without_key, without_key_at_end
from critique_rl.config.terminal import say, without_controls
from critique_rl.critic.api.billing.first_answer import alone_until_first_answer
from critique_rl.critic.api.billing.usage_report import PartialUsage
from critique_rl.critic.api.client import read_body
from critique_rl.critic.api.failures import NotSent, is_filtered
from critique_rl.critic.api.response import Answer, BadResponse, OtherModel, Report
from critique_rl.critic.api.scoring.question import (
    max_usage,
    parse_answer,
    request_body,
    written_text,
)
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
    most = max_usage(call.step.endpoint, call.question, factor)
    async with alone_until_first_answer(call):
        return await _send_reserved(call, factor, most)


async def _send_reserved(call: Call, factor: float, most: Usage) -> Answer:
    """`send_request`, once no other request has to be waited for. Raises what that raises."""
    from openai import APIStatusError

    step = call.step
    endpoint = step.endpoint
    await _wait_and_reserve(call, most)
    usage = None
    try:
        # The SDK's own timeout starts again with every byte, so a server that trickles would never
        # run into it.
        async with asyncio.timeout(endpoint.attempt_deadline):
            body = await read_body(
                step.client, request_body(endpoint, call.question, call.sample, factor)
            )
        answer = parse_answer(call.question, body)
        if endpoint.strict_model and endpoint.other_model(answer.model):
            raise OtherModel(endpoint.model, answer)
        written = written_text(call.question, answer)
        usage = endpoint.billed_usage(answer.usage, most, len(body), written)
    except (BadResponse, APIStatusError) as error:
        usage = _usage_of_failure(call, error, most)
        raise
    finally:
        # Without a usage (a deadline, a cut connection, a 5xx) the request may be billed: its
        # reservation stands.
        if usage is not None:
            _settle(call, most, usage)
    key = step.client.api_key
    # Only now: the JSON of the body may spell the key with escapes.
    return replace(
        answer,
        text=_clean(call, answer.text),
        finish_reason=_clean(call, without_key_at_end(answer.finish_reason, key)),
        model=_clean(call, without_key_at_end(answer.model, key)),
    )


def _clean(call: Call, text: str) -> str:
    """A server's text without the key, and without escapes that a terminal would obey."""
    return without_controls(without_key(text, call.step.client.api_key)).strip()


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
    reported: Report = getattr(error, "usage", None)
    if isinstance(reported, PartialUsage):
        reported = reported.fill(most)
    if reported is not None and endpoint.is_plausible(reported, most):
        return endpoint.with_price(reported)
    status = getattr(error, "status_code", None)
    # Not so a 5xx: a gateway's 504 may hide an answer that is billed.
    is_refusal = status is not None and status < 500
    if is_refusal and not _is_billed_refusal(error):
        return endpoint.with_price(Usage())
    return None


def _is_billed_refusal(error: Exception) -> bool:
    """Whether a 4xx may cost tokens: a timeout, or a filter that has read the prompt."""
    # Azure bills both, by its page on the prices of filtered requests.
    status = getattr(error, "status_code", None)
    return status == 408 or is_filtered(error)


def _settle(call: Call, most: Usage, usage: Usage) -> None:
    reserved = most.prompt_tokens + most.completion_tokens
    used = usage.prompt_tokens + usage.completion_tokens
    excess = max(0, used - reserved)
    step = call.step
    is_first_excess = step.ledger.settle(most, usage)
    step.limits.give_back(reserved - used)
    call.spent.append(replace(usage, excess_tokens=excess))
    if is_first_excess and step.endpoint.bounds_answers:
        say(
            f"{step.endpoint.base_url}: an answer was billed at {used} tokens and "
            f"${usage.usd:.6f}, and at most {reserved} tokens and ${most.usd:.6f} were reserved "
            "for it: the server does not keep max_tokens, adds to the prompt, or costs more than "
            "the prices say. All later requests reserve the excess more. The caps may be "
            "exceeded by the excess of what was out at this moment"
        )
