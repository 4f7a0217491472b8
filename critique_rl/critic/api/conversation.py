"""One conversation -> one reply: from the cache, else by requests to the endpoint.

A conversation passes, in this order: `cache`, the step's turns, a slot of `limits`,
`circuit_breaker`, then `retry`, whose requests (`request`) pass the rates and the `ledger`. An
answer that was cut at max_tokens is asked for once more with a larger bound. Each outcome goes to
the circuit breaker and the step, and each answer to the journal and the cache.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import replace

from critique_rl.critic.api.cache import cache_key
from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.api.failures import NotSent, failure_reason, is_endpoint_alive
from critique_rl.critic.api.response import Answer
from critique_rl.critic.api.retry import send_with_retries
from critique_rl.critic.api.step import Call
from critique_rl.critic.contract import Reply
from critique_rl.types import Usage

FINISH_REASONS = {"stop": "", "length": "length", "": "finish_missing"}
"""Finish reason of an answer with text -> reason of its reply; any other word is "finish_unknown".
"""

REFUSALS = ("content_filter", "refusal", "tool_call")
"""Finish reasons of answers that are no critique, whatever their text."""


async def answer_call(call: Call) -> Reply:
    """Answer a conversation. Raises nothing but a cancellation."""
    try:
        return await _answer_from_cache(call)
    except sqlite3.Error as error:
        return Reply("", "failed", failure_reason(error))


async def _answer_from_cache(call: Call) -> Reply:
    step = call.step
    if step.cache is None:
        return await _ask(call)
    key = cache_key(step.endpoint, call.question, call.sample)
    kept = step.cache.get(key)
    if kept is not None:
        owed = step.ledger.replay(key)
        # An owed answer counts as it did when it was paid for: as no cached one.
        return replace(kept, usage=owed or Usage(), cached=owed is None)
    reply = await _ask(call)
    if reply.status != "ok":
        return reply
    # Recorded before it is cached: killed in between, the answer is asked for again. The other way
    # round it would be taken for one that cost nothing.
    step.ledger.record_answer(key, reply.usage)
    return step.cache.put(key, reply)


async def _ask(call: Call) -> Reply:
    """Ask the endpoint, within the step's deadline, and report the outcome."""
    start = time.monotonic()
    step = call.step
    failure = None
    try:
        async with step.deadline.timeout(), step.turns, step.limits.slot():
            reply = await _converse(call)
    except Exception as error:
        failure = error
        reply = _reply_of_failure(call, error)
    if call.admitted:
        alive = is_endpoint_alive(failure, step_over=not step.deadline.seconds_left())
        step.limits.circuit_breaker.report(alive)
    step.record(reply, failure)
    usage = replace(sum(call.spent, Usage()), seconds=time.monotonic() - start)
    return replace(reply, usage=usage)


def _reply_of_failure(call: Call, error: Exception) -> Reply:
    step = call.step
    if call.cut is not None and call.cut.text:
        # The longer answer failed; the cut one is better than none.
        return _reply_of_answer(call.cut, step.endpoint)
    step_over = not step.deadline.seconds_left()
    reason = failure_reason(error, step.client.api_key, step_over)
    if call.sent:
        return Reply("", "failed", reason)
    return Reply("", "skipped", reason)


async def _converse(call: Call) -> Reply:
    """Get an answer, or the longer one if it is cut at max_tokens.

    Raises:
        NotSent: the circuit is open, or a refusal has ended the step.
        Exception: the failure of the last request (`send_request` lists the kinds).
    """
    step = call.step
    if step.refusal:
        raise NotSent(step.refusal)
    if not await step.limits.circuit_breaker.admit():
        raise NotSent("circuit open")
    call.admitted = True
    async with call.deadline.timeout:
        answer = await send_with_retries(call)
        if answer.finish_reason == "length" and step.endpoint.retries_cut_answers:
            call.cut = answer
            longer = await send_with_retries(call, step.endpoint.length_retry_factor)
            # A reasoning model may spend the larger bound on thoughts alone. Then the answer that
            # was cut is the better one, and stays one that was cut.
            if longer.text or longer.finish_reason in REFUSALS or not answer.text:
                answer = longer
    return _reply_of_answer(answer, step.endpoint)


def _reply_of_answer(answer: Answer, endpoint: Endpoint) -> Reply:
    """The reply that an answer amounts to, by its finish reason and its text."""
    model = endpoint.other_model(answer.model)
    if answer.finish_reason in REFUSALS:
        # Half a sentence is no critique, nor is a preface to a call of a tool, and a longer bound
        # would not complete them.
        return Reply("", "failed", answer.finish_reason, model=model)
    reason = FINISH_REASONS.get(answer.finish_reason)
    if reason is None:
        reason = f"finish_unknown: {answer.finish_reason}"
    if answer.text:
        return Reply(answer.text, reason=reason, model=model)
    if answer.refusal or reason != "length":
        reason = answer.refusal or "empty"
    return Reply("", "failed", reason, model=model)
