"""What a chat model behind an OpenAI-compatible address is asked with, what it may cost and how
long it may take. Plain data, checked at once.

The names are the keys of `critic: {kind: api, ...}`. Left out: providers with an interface of their
own; nearly all offer this one.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from critique_rl.types import Message, Usage

LOOPBACK = ("localhost", "127.0.0.1", "::1")
OURS = ("model", "messages", "n", "stream")
"""What a request's `extra_body` cannot set: one call asks for one whole answer, since servers
accept n > 1 and ignore it.
"""
MESSAGE_TOKENS = 16
"""Tokens a chat template may add to a message."""
SQLITE = b"SQLite format 3\0"
"""How each SQLite file begins."""
BEYOND = 200_000
"""Tokens beyond a reservation that a server is believed to have used: its own long template,
thoughts that max_tokens does not bound. More is a fault.
"""
OPERATIONAL = (
    "api_key_env",
    "attempts",
    "attempt_deadline",
    "deadline",
    "step_deadline",
    "concurrency",
    "requests_per_minute",
    "tokens_per_minute",
)
OPERATIONAL += ("circuit_failures", "circuit_seconds", "on_failure", "cache", "caps")
"""What decides how and whether a call is made, and no answer: a run may be continued with others of
these.
"""


@dataclass(frozen=True)
class Caps:
    """What a run may spend on its critic at most, over all its ranks, steps and restarts. A call
    that might pass one of them is not sent.
    """

    max_requests: int | None = None
    """Requests, each try of a call for itself."""
    max_tokens: int | None = None
    """Tokens of prompts and answers."""
    max_cost: float | None = None
    """US dollars by the endpoint's prices."""


@dataclass(frozen=True)
class Endpoint:
    """A chat model at `base_url`. Settings that are None are not sent; `extra_body` is merged into
    every request. ValueError for what cannot work.
    """

    base_url: str
    """The address up to its version, such as http://127.0.0.1:8000/v1. No password, no query: it is
    stored.
    """
    model: str
    """The model's name there."""
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable with the key; the key itself is read at each call and stored
    nowhere.
    """
    temperature: float | None = 0.7
    """Of sampling."""
    top_p: float | None = None
    """Of sampling."""
    max_tokens: int | None = 1024
    """Of one answer."""
    seed: int | None = None
    """Sent with the number of the sample added, so that two answers to one question differ."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """What else a server takes, such as {chat_template_kwargs: {enable_thinking: false}}."""
    length_retry_factor: float = 2.0
    """An answer cut at max_tokens is asked for once more with this many times as many; 1: never."""
    attempts: int = 3
    """Tries of a call at most."""
    attempt_deadline: float = 60.0
    """Seconds for one try, kept by asyncio: the SDK's own timeout starts again with every byte, so
    a server that trickles never runs into it.
    """
    deadline: float = 120.0
    """Seconds for one conversation, tries and waits between them included, from when it gets one of
    the `concurrency` slots.
    """
    step_deadline: float = 300.0
    """Seconds for all conversations of a training step together, waits for slots and rate limits
    included.
    """
    concurrency: int = 8
    """Calls at a time, over all ranks of a run on one machine. So are the rates."""
    requests_per_minute: float | None = None
    """At most so many; null: no bound."""
    tokens_per_minute: float | None = None
    """Of prompts and answers, an answer reserved at its most; null: no bound."""
    circuit_failures: int = 8
    """After so many failed conversations in a row (network, 5xx, unreadable answers) none is sent
    for `circuit_seconds`; then one, as a probe.
    """
    circuit_seconds: float = 60.0
    """How long that lasts."""
    on_failure: Literal["skip", "stop"] = "skip"
    """skip: the row goes uncritiqued, counted with its reason. stop: the run ends with the reason,
    for anything but an answer without usable text.
    """
    cache: bool | str = True
    """Answers are kept in the run's folder, or in this file, which runs may share; false: nowhere,
    and a killed run is not continued exactly.
    """
    caps: Caps = field(default_factory=Caps)
    """What the run may spend on this critic at most."""
    prompt_price: float = 0.0
    """US dollars for a million prompt tokens."""
    completion_price: float = 0.0
    """US dollars for a million tokens of answers."""
    cached_prompt_price: float | None = None
    """For prompt tokens that the server says it had cached; None: as `prompt_price`."""
    price_share: float = 1.0
    """What is charged of these prices: .5 for a batch or flex tier that `extra_body` or the
    endpoint stands for.
    """

    def __post_init__(self) -> None:
        self._check_address()
        self._check_numbers()
        self._check_caps()
        if not isinstance(self.extra_body, Mapping) or set(self.extra_body) & set(OURS):
            raise ValueError(
                f"extra_body: got {self.extra_body!r}, expected a mapping without {', '.join(OURS)}: one call asks for one whole answer"
            )
        if self.on_failure not in ("skip", "stop"):
            raise ValueError(f"on_failure: got {self.on_failure!r}, expected skip or stop")
        self._check_cache()

    def _check_cache(self) -> None:
        if not isinstance(self.cache, bool | str) or self.cache == "":
            raise ValueError(
                f"cache: got {self.cache!r}, expected true, false or the path of a file"
            )
        path = Path(str(self.cache)).expanduser()
        if not isinstance(self.cache, str) or not path.exists():
            return
        # A damaged cache is moved aside to begin a new one; what somebody else wrote must not be.
        if not path.is_file() or _start(path) not in (b"", SQLITE):
            raise ValueError(
                f"cache: {self.cache} exists and is no cache that can be read; give another path, or move it away"
            )

    def _check_address(self) -> None:
        parts = urlsplit(self.base_url)
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.netloc.endswith(":")
        ):
            raise ValueError(
                f"base_url is {self.base_url!r}; give the address up to its version, such as http://127.0.0.1:8000/v1"
            )
        if parts.username or parts.password or parts.query:
            # The address is stored with the run's settings, and keys are not.
            raise ValueError(
                "base_url: got an address with a password or a query; give it without, and the key in the variable that api_key_env names"
            )

    def _check_numbers(self) -> None:
        prices = (
            self.prompt_price,
            self.completion_price,
            self.cached_prompt_price or 0.0,
            self.price_share,
        )
        if not all(math.isfinite(price) and price >= 0 for price in prices):
            raise ValueError(
                f"got prompt_price, completion_price, cached_prompt_price, price_share {prices}; expected numbers, none negative"
            )
        names = (
            "attempts",
            "attempt_deadline",
            "deadline",
            "step_deadline",
            "concurrency",
            "circuit_failures",
            "circuit_seconds",
        )
        for name in (*names, "max_tokens", "requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name}: got {value}, expected a positive number")
        if not 1 <= self.length_retry_factor <= 16:
            raise ValueError(
                f"length_retry_factor: got {self.length_retry_factor}, expected 1 (never) to 16"
            )

    def _check_caps(self) -> None:
        for name in ("max_requests", "max_tokens", "max_cost"):
            value = getattr(self.caps, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(
                    f"caps.{name}: got {value}, expected a number from 0, or nothing for no cap"
                )
        if self.caps.max_cost is not None and not self.prompt_price + self.completion_price:
            raise ValueError(
                "caps.max_cost: no call costs anything without prices; give prompt_price and completion_price"
            )
        if (self.caps.max_tokens, self.caps.max_cost) != (
            None,
            None,
        ) and self.answer_tokens() is None:
            raise ValueError(
                "caps: an answer without max_tokens may cost anything; give max_tokens"
            )

    @property
    def local(self) -> bool:
        return urlsplit(self.base_url).hostname in LOOPBACK

    def key(self) -> str:
        """The key. ValueError where it cannot be sent, or the variable is not set, but for servers
        on this machine, which mostly want none.
        """
        key = os.environ.get(self.api_key_env, "").strip()
        if not key and not self.local:
            raise ValueError(
                f"{self.base_url} needs a key, and ${self.api_key_env} is not set; set it, to any word where the server asks for none"
            )
        if not (key.isascii() and key.isprintable()):
            raise ValueError(
                f"${self.api_key_env} holds a line break, or another character that no key has (only printable ASCII can be sent); set it anew"
            )
        return key or "none"

    def answer_tokens(self, factor: float = 1.0) -> int | None:
        """Tokens an answer may have, `factor` times the setting; reasoning models take it as
        `max_completion_tokens` in `extra_body`. None: no bound.
        """
        bound = self.extra_body.get(
            "max_completion_tokens", self.extra_body.get("max_tokens", self.max_tokens)
        )
        return None if bound is None else int(bound * factor)

    def request(
        self, messages: Sequence[Message], sample: int = 0, factor: float = 1.0
    ) -> dict[str, Any]:
        """The request's body. `sample` numbers the answers to one conversation."""
        seed = None if self.seed is None else self.seed + sample
        settings = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "seed": seed,
            **self.extra_body,
        }
        if factor != 1.0:
            bounds = [
                name
                for name in ("max_tokens", "max_completion_tokens")
                if settings.get(name) is not None
            ]
            settings |= {name: int(settings[name] * factor) for name in bounds}
        return {
            "model": self.model,
            "messages": list(messages),
            **{name: value for name, value in settings.items() if value is not None},
        }

    def most(self, messages: Sequence[Message], factor: float = 1.0) -> Usage:
        """What a call may cost at most: no tokenizer makes more tokens than there are UTF-8 bytes,
        and a template adds few to each message.
        """
        prompt = sum(
            len(message["content"].encode(errors="surrogatepass")) + MESSAGE_TOKENS
            for message in messages
        )
        prompt += (
            len(json.dumps(self.extra_body, default=str)) if self.extra_body else 0
        )  # a schema, say, which a server may put into the prompt
        return self.priced(Usage(prompt, self.answer_tokens(factor) or 0))

    def counted(self, reported: Usage | None, most: Usage, size: int) -> Usage:
        """What an answer of `size` bytes counts as: what is reported where that can be, else the
        most that was reserved for it.
        """
        if reported is not None and self.believes(reported, most):
            return self.priced(reported)
        # Without max_tokens nothing is reserved for the answer; it has no more tokens than bytes.
        return self.priced(
            replace(most, completion_tokens=most.completion_tokens or size, estimated=1)
        )

    def believes(self, reported: Usage, most: Usage) -> bool:
        """False for a report that cannot be: believed, it would use up caps and rates for good."""
        prompt, completion = most.prompt_tokens + BEYOND, most.completion_tokens + BEYOND
        return reported.prompt_tokens <= prompt and reported.completion_tokens <= completion

    def priced(self, usage: Usage) -> Usage:
        """The usage with its price."""
        cached_price = (
            self.prompt_price if self.cached_prompt_price is None else self.cached_prompt_price
        )
        fresh = usage.prompt_tokens - usage.cached_prompt_tokens
        usd = (
            fresh * self.prompt_price
            + usage.cached_prompt_tokens * cached_price
            + usage.completion_tokens * self.completion_price
        )
        return replace(usage, usd=self.price_share * usd / 1e6)


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(len(SQLITE))
    except OSError:
        return b"not readable"
