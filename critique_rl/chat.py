"""Who answers messages: any server that speaks the OpenAI chat interface, or the policy itself.

A call has a deadline for all its tries together, kept by asyncio: the SDK's own timeout starts again with every byte, so a server that trickles
would never run into it. One call sends one request for one answer: servers accept n > 1 or a JSON mode and ignore them. async stays in this file.

Left out until needed: a cache, token budgets, rate limits shared between processes, a circuit breaker, providers with an interface of their own.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

from critique_rl.types import Message, Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from tenacity import RetryCallState

T = TypeVar("T")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
HEALS = (408, 409, 429)
"""Refusals worth another try, besides every 5xx."""
CONNECT_SECONDS = 5.0
WORDS = 160
"""Characters of a server's own words that a reason may quote."""


@dataclass(frozen=True)
class Reply:
    """One answer, or the reason why there is none. An answer cut at max_tokens is "ok" with the reason "length"."""

    text: str
    status: Literal["ok", "failed"] = "ok"
    reason: str = ""
    """"timeout", "connection", "empty", "bad response", or "http 401: <the server's words>"."""
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True)
class ApiChat:
    """A chat model behind `base_url`. Settings that are None are not sent; `extra_body` is merged into every request."""

    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable with the key; the key itself is read at each call and stored nowhere."""
    temperature: float | None = 0.7
    top_p: float | None = None
    max_tokens: int | None = 1024
    seed: int | None = None
    deadline: float = 60.0
    """Seconds for one conversation, tries and waits between them included, from when it gets one of the `concurrency` slots."""
    attempts: int = 3
    concurrency: int = 8
    prompt_price: float = 0.0
    """US dollars for a million prompt tokens."""
    completion_price: float = 0.0
    cached_prompt_price: float | None = None
    """For prompt tokens that the server says it had cached; None: as `prompt_price`."""
    price_share: float = 1.0
    """What is charged of these prices: .5 for a batch or flex tier that `extra_body` or the endpoint stands for."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if urlsplit(self.base_url).scheme not in ("http", "https"):
            raise ValueError(f"base_url is {self.base_url!r}; give the address up to its version, such as http://127.0.0.1:8000/v1")
        prices = (self.prompt_price, self.completion_price, self.cached_prompt_price or 0.0, self.price_share)
        if min(prices) < 0:
            raise ValueError(f"got prompt_price, completion_price, cached_prompt_price, price_share {prices}; none may be negative")
        if self.deadline <= 0 or self.attempts < 1 or self.concurrency < 1:
            raise ValueError(f"got deadline={self.deadline}, attempts={self.attempts}, concurrency={self.concurrency}; all have to be positive")

    @property
    def local(self) -> bool:
        return urlsplit(self.base_url).hostname in LOOPBACK

    def key(self) -> str:
        """The key. ValueError where the variable is not set, but for servers on this machine, which mostly want none."""
        key = os.environ.get(self.api_key_env, "").strip()
        if not key and not self.local:
            raise ValueError(f"{self.base_url} needs a key, and ${self.api_key_env} is not set; set it, to any word where the server asks for none")
        return key or "none"

    def answer(self, conversations: Sequence[list[Message]]) -> list[Reply]:
        """One reply to each conversation, in order. A conversation that fails is a failed reply; only a missing key raises."""
        self.key()
        return in_thread(_answer_all(self, conversations)) if conversations else []


@dataclass
class PolicyChat:
    """The policy as it is in training. The trainer puts in `sample`, which answers conversations with its own sampler and counts the tokens."""

    sample: Callable[[Sequence[list[Message]]], list[Reply]] | None = None

    def answer(self, conversations: Sequence[list[Message]]) -> list[Reply]:
        """One reply to each conversation, in order. Called on every rank, also without conversations: sampling may be a collective."""
        if self.sample is None:
            raise ValueError("the self critic has no policy yet; give it to CritiqueGRPOTrainer(critic=...), which lends its own")
        return self.sample(conversations)


def in_thread(coroutine: Coroutine[Any, Any, T]) -> T:
    """Wait for a coroutine that runs in a loop and thread of its own, since the caller may sit in a running loop (a notebook, TRL).

    The loop lives for one call, so a process forked between two calls inherits nothing. Ctrl-C cancels what is running and goes on up.
    """
    outcome: Future[T] = Future()
    loop = asyncio.new_event_loop()

    async def settle() -> None:
        try:
            outcome.set_result(await coroutine)
        except Exception as error:
            outcome.set_exception(error)

    def work() -> None:
        with suppress(asyncio.CancelledError), asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(settle())

    Thread(target=work, name="critique_rl.chat", daemon=True).start()
    try:
        return outcome.result()
    except KeyboardInterrupt:
        with suppress(RuntimeError):  # the loop may have just closed
            loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
        raise


async def _answer_all(chat: ApiChat, conversations: Sequence[list[Message]]) -> list[Reply]:
    slots = asyncio.Semaphore(chat.concurrency)

    async def one(client: AsyncOpenAI, messages: list[Message]) -> Reply:
        async with slots:
            return await _answer_one(chat, client, messages)

    async with _client(chat) as client:
        return await asyncio.gather(*(one(client, messages) for messages in conversations))


def _client(chat: ApiChat) -> AsyncOpenAI:
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

    # A proxy from the environment would be asked for this machine's own addresses.
    http = DefaultAsyncHttpxClient(trust_env=False) if chat.local else None
    timeout = Timeout(chat.deadline, connect=min(CONNECT_SECONDS, chat.deadline))
    return AsyncOpenAI(base_url=chat.base_url, api_key=chat.key(), max_retries=0, timeout=timeout, http_client=http)


async def _answer_one(chat: ApiChat, client: AsyncOpenAI, messages: list[Message]) -> Reply:
    """Never raises but for cancellation."""
    start = time.monotonic()
    try:
        completion = await asyncio.wait_for(_with_retries(chat, client, messages), chat.deadline)
        reply = _read(completion, chat)
    except Exception as error:
        reply = Reply("", "failed", _reason(error, secret=client.api_key))
    return replace(reply, usage=replace(reply.usage, seconds=time.monotonic() - start))


async def _with_retries(chat: ApiChat, client: AsyncOpenAI, messages: list[Message]) -> Any:
    from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, stop_before_delay

    settings = {"temperature": chat.temperature, "top_p": chat.top_p, "max_tokens": chat.max_tokens, "seed": chat.seed}
    settings = {name: value for name, value in settings.items() if value is not None}
    # A wait past the deadline could only end as "timeout"; stopping before it keeps the server's reason.
    stop = stop_after_attempt(chat.attempts) | stop_before_delay(chat.deadline)
    async for attempt in AsyncRetrying(retry=retry_if_exception(_heals), wait=_wait, stop=stop, reraise=True):
        with attempt:
            return await client.chat.completions.create(model=chat.model, messages=messages, extra_body=dict(chat.extra_body), **settings)


def _heals(error: BaseException) -> bool:
    """True for what another try may mend: the network, an overloaded or broken server. False for a refused key or request."""
    from openai import APIConnectionError, APIStatusError

    if isinstance(error, APIStatusError):
        return error.status_code in HEALS or error.status_code >= 500
    return isinstance(error, APIConnectionError)


def _wait(state: RetryCallState) -> float:
    """Seconds until the next try: what the server asked for, else random and growing, so that many calls do not come back together."""
    from tenacity import wait_random_exponential

    response = getattr(state.outcome.exception(), "response", None)
    asked = _retry_after(response.headers.get("retry-after", "")) if response is not None else None
    return wait_random_exponential(multiplier=0.5, max=20)(state) if asked is None else asked


def _retry_after(value: str) -> float | None:
    """Seconds from a Retry-After header, a number or a date; None where it is neither."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _read(completion: Any, chat: ApiChat) -> Reply:
    """The reply in a server's answer, which the SDK does not check: it may be a string, or lack any part."""
    usage = _usage(getattr(completion, "usage", None), chat)
    choices = getattr(completion, "choices", None)
    if not isinstance(choices, list) or not choices:
        return Reply("", "failed", "bad response: no choices", usage)
    text = getattr(getattr(choices[0], "message", None), "content", None)
    if text is not None and not isinstance(text, str):
        return Reply("", "failed", f"bad response: content is a {type(text).__name__}", usage)
    if not text or not text.strip():
        return Reply("", "failed", "empty", usage)
    return Reply(text, reason="length" if choices[0].finish_reason == "length" else "", usage=usage)


def _usage(counts: Any, chat: ApiChat) -> Usage:
    """Tokens as the server counted them, 0 where it did not, and their price."""
    details = getattr(counts, "prompt_tokens_details", None)
    found = [getattr(counts, "prompt_tokens", 0), getattr(counts, "completion_tokens", 0), getattr(details, "cached_tokens", 0)]
    prompt, completion, cached = (n if isinstance(n, int) and n >= 0 else 0 for n in found)
    cached = min(cached, prompt)
    cached_price = chat.prompt_price if chat.cached_prompt_price is None else chat.cached_prompt_price
    usd = (prompt - cached) * chat.prompt_price + cached * cached_price + completion * chat.completion_price
    return Usage(prompt, completion, usd=chat.price_share * usd / 1e6, cached_prompt_tokens=cached)


def _reason(error: Exception, secret: str) -> str:
    """A short reason that says what failed, in the server's words where it sent some, which may quote the key."""
    from openai import APIConnectionError, APIStatusError, APITimeoutError

    match error:
        case TimeoutError() | APITimeoutError():
            return "timeout"
        case APIStatusError():
            return f"http {error.status_code}: {_words(error.body, error.message, secret)}"
        case APIConnectionError():
            return "connection"
    return f"bad response: {type(error).__name__}"


def _words(body: object, otherwise: str, secret: str) -> str:
    """What the server said, in one short line without the key."""
    said = str((body.get("message") if isinstance(body, dict) else body) or otherwise)
    # A short key is a placeholder such as "none", and a word that errors may use.
    return " ".join((said.replace(secret, "***") if len(secret) >= 8 else said).split())[:WORDS]
