"""One conversation, from the cache or the endpoint."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from dataclasses import replace

from critique_rl.critic.api.cache import key_of
from critique_rl.critic.api.failures import NotSent, alive, reason_of
from critique_rl.critic.api.retry import _tries
from critique_rl.critic.api.step import Call
from critique_rl.critic.contract import Reply
from critique_rl.types import Usage


async def _put(replies: list[Reply], i: int, call: Call) -> None:
    """Never raises but for cancellation."""
    try:
        replies[i] = await _answer(call)
    except sqlite3.Error as error:
        replies[i] = Reply("", "failed", reason_of(error))


async def _answer(call: Call) -> Reply:
    """Answer a conversation from the cache, else by the endpoint."""
    step = call.step
    if step.cache is None:
        return await _ask(call)
    key = key_of(step.endpoint, call.messages, call.sample)
    kept = step.cache.get(key)
    if kept is not None:
        paid = step.ledger.replay(key)
        return replace(kept, usage=paid or Usage(), cached=paid is None)
    reply = await _ask(call)
    if reply.status != "ok":
        return reply
    # Noted before it is kept: killed in between, the answer is asked for again, and not taken for
    # one that cost nothing.
    step.ledger.note(key, reply.usage)
    return step.cache.put(key, reply)


async def _ask(call: Call) -> Reply:
    start, step, error = time.monotonic(), call.step, None
    try:
        async with asyncio.timeout_at(step.end), step.turns, step.limits.slot():
            reply = await _conversation(call)
    except Exception as caught:
        error, reply = (
            caught,
            Reply(
                "",
                "failed" if call.sent else "skipped",
                reason_of(caught, step.client.api_key, over=not step.left()),
            ),
        )
        if call.cut:  # better than none
            reply = Reply(call.cut, reason="length")
    if call.admitted:
        step.limits.breaker.report(alive(error, over=not step.left()))
    step.note(reply, error)
    return replace(reply, usage=replace(sum(call.spent, Usage()), seconds=time.monotonic() - start))


async def _conversation(call: Call) -> Reply:
    """One answer; where it was cut at max_tokens, the longer one."""
    step, endpoint = call.step, call.step.endpoint
    if step.refused:
        raise NotSent(step.refused)
    if not await step.limits.breaker.admitted():
        raise NotSent("circuit open")
    call.admitted = True
    async with call.clock:
        text, finish = await _tries(call)
        if (
            finish == "length"
            and endpoint.length_retry_factor > 1
            and endpoint.answer_tokens() is not None
        ):
            call.cut = text
            longer, finish = await _tries(call, endpoint.length_retry_factor)
            text = longer or text
    if not text:
        return Reply("", "failed", "length" if finish == "length" else "empty")
    return Reply(text, reason="length" if finish == "length" else "")
