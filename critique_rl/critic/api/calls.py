"""Calls of an endpoint: tries, waits, deadlines. asyncio is used here, in `loop` and in `limits`,
and nowhere else.

    a step     all conversations of one `answer`, together within `step_deadline`
    a call     one conversation, from its slot on within `deadline`: up to `attempts` tries, and once more where the answer was cut
    a try      one request within `attempt_deadline`, reserved in the ledger before and settled after

Every conversation ends with a reply: an answer, or why there is none. What may heal (the network,
408, 409, 425, 429, 5xx, a body that is no answer) is tried again after the wait the server asks
for, else after a random and growing one. What cannot heal fails at once with the server's words,
also where it says so in a body with status 200. After a 401, 403 or 404, a redirect (none is
followed) or a used-up quota, which all calls would meet, the rest of the step is not sent; nor
after three other refusals where nothing was answered (a 400 may be about one prompt). A body is
read up to `MOST_BYTES`.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from critique_rl.critic.api.cache import Cache, key_of, open_cache
from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.api.failures import (
    NotSent,
    alive,
    for_all,
    heals,
    reason_of,
    wait,
    without_key,
)
from critique_rl.critic.api.ledger import Ledger, open_ledger
from critique_rl.critic.api.limits import Limits, open_limits
from critique_rl.critic.api.loop import in_thread
from critique_rl.critic.api.response import BadResponse, read
from critique_rl.critic.contract import NO_TEXT_REASONS, CriticFailed, Reply
from critique_rl.types import Message, Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI

MOST_REFUSALS = 3
CONNECT_SECONDS = 5.0
CLOSING = 0.1
"""Share of `step_deadline`, but a second at most, that is left for connections to close; where they
do not, their thread is left behind.
"""
MOST_BYTES = 4 << 20
"""Of a body; no critique is as long."""


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


def answer_all(
    endpoint: Endpoint, folder: Path, conversations: Sequence[list[Message]]
) -> list[Reply]:
    """One reply to each conversation, in order, within `step_deadline`. `folder` holds what ranks
    and restarts share.

    CriticFailed where its files cannot be used.
    """
    replies = [Reply("", "failed", "step deadline")] * len(conversations)
    try:
        in_thread(_answer_all(endpoint, folder, conversations, replies), endpoint.step_deadline)
    except TimeoutError:
        pass  # the replies say so
    except sqlite3.Error as error:
        raise CriticFailed(f"the critic's files in {folder} cannot be used: {error}") from error
    return list(replies)


async def _answer_all(
    endpoint: Endpoint, folder: Path, conversations: Sequence[list[Message]], replies: list[Reply]
) -> None:
    end, seen = (
        asyncio.get_running_loop().time()
        + endpoint.step_deadline
        - min(1.0, CLOSING * endpoint.step_deadline),
        Counter(),
    )
    cache = (
        folder / "cache.sqlite"
        if endpoint.cache is True
        else Path(endpoint.cache).expanduser()
        if endpoint.cache
        else None
    )
    with ExitStack() as files:
        ledger, limits = (
            files.enter_context(open_ledger(folder / "ledger.sqlite", endpoint.caps)),
            files.enter_context(open_limits(folder, endpoint)),
        )
        kept = files.enter_context(open_cache(cache)) if cache else None
        async with _client(endpoint) as client, asyncio.TaskGroup() as tasks:
            step = Step(
                endpoint, client, kept, ledger, limits, asyncio.Semaphore(endpoint.concurrency), end
            )
            for i, messages in enumerate(conversations):
                text = json.dumps(messages)
                tasks.create_task(_put(replies, i, Call(step, messages, seen[text])))
                seen[text] += 1


def _client(endpoint: Endpoint) -> AsyncOpenAI:
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

    # A proxy from the environment would be asked for this machine's own addresses.
    http = DefaultAsyncHttpxClient(trust_env=not endpoint.local, follow_redirects=False)
    timeout = Timeout(
        endpoint.attempt_deadline, connect=min(CONNECT_SECONDS, endpoint.attempt_deadline)
    )
    return AsyncOpenAI(
        base_url=endpoint.base_url,
        api_key=endpoint.key(),
        max_retries=0,
        timeout=timeout,
        http_client=http,
    )


# ---- a call --------------------------------------------------------------------------------------


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
        step.limits.report(alive(error, over=not step.left()))
    step.note(reply, error)
    return replace(reply, usage=replace(sum(call.spent, Usage()), seconds=time.monotonic() - start))


async def _conversation(call: Call) -> Reply:
    """One answer; where it was cut at max_tokens, the longer one."""
    step, endpoint = call.step, call.step.endpoint
    if step.refused:
        raise NotSent(step.refused)
    if not await step.limits.admitted():
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


async def _body(client: AsyncOpenAI, request: dict[str, Any]) -> bytes:
    """The server's answer as it came."""
    extra, body = (
        {name: value for name, value in request.items() if name not in ("model", "messages")},
        bytearray(),
    )
    create = client.chat.completions.with_streaming_response.create
    async with create(
        model=request["model"], messages=request["messages"], extra_body=extra
    ) as response:
        async for chunk in response.iter_bytes():
            body += chunk
            if len(body) > MOST_BYTES:
                raise BadResponse(f"over {MOST_BYTES >> 20} MB")
    return bytes(body)
