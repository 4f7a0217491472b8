"""A chat model behind an OpenAI-compatible address: its settings, limits and prices.

Plain data, checked at construction. The field names are the keys of `critic: {kind: api, ...}`.
Left out: providers with an interface of their own; nearly all offer this one.
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

from critique_rl.config.secrets import base_url_fault, refuse_secrets, variable_fault
from critique_rl.critic.api.billing.usage_report import PartialUsage
from critique_rl.types import Message, Usage

LOOPBACK = ("localhost", "127.0.0.1", "::1")
# One call asks for one complete answer: servers accept n > 1 and ignore it.
RESERVED_BODY_KEYS = ("model", "messages", "n", "stream")
"""Keys that `extra_body` cannot set."""
MESSAGE_TOKENS = 16
"""Tokens that a chat template may add to a message."""
NO_NAME = "none named"
"""Stands for the model of an answer that names none."""
SQLITE_HEADER = b"SQLite format 3\0"
"""How each SQLite file begins."""
USAGE_SLACK_TOKENS = 2_000_000
"""Tokens beyond a reservation that a server may plausibly report: its own long template, thoughts
that max_tokens does not bound. Contexts of today's servers end there.
"""
LONGEST_TOKEN_BYTES = 16
"""Bytes per token that no text has on average."""
OPERATIONAL = (
    "api_key_env",
    "attempts",
    "attempt_deadline",
    "deadline",
    "step_deadline",
    "concurrency",
    "requests_per_minute",
    "tokens_per_minute",
    "circuit_failures",
    "circuit_seconds",
    "on_failure",
    "cache",
    "caps",
)
"""Fields that decide how and whether a call is made, and no answer: a run may be continued with
other values of these.
"""
POSITIVE = (
    "attempts",
    "attempt_deadline",
    "deadline",
    "step_deadline",
    "concurrency",
    "circuit_failures",
    "circuit_seconds",
    "max_tokens",
    "requests_per_minute",
    "tokens_per_minute",
)
"""Fields that are positive numbers, or None if their type allows it."""


@dataclass(frozen=True)
class Caps:
    """The most that a run may spend on its critic, over all its ranks, steps and restarts.

    A request that might exceed one of the caps is not sent.
    """

    max_requests: int | None = None
    """Requests; each retry counts."""
    max_tokens: int | None = None
    """Tokens of prompts and answers."""
    max_cost: float | None = None
    """US dollars at the endpoint's prices."""


@dataclass(frozen=True)
class Endpoint:
    """A chat model at `base_url`.

    Settings that are None are not sent. `extra_body` is merged into every request. ValueError for
    settings that cannot work.
    """

    base_url: str
    """The address up to its version, such as http://127.0.0.1:8000/v1. No password, no query: it is
    stored.
    """
    model: str
    """The model's name there."""
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable with the key. The key itself is read at each call and stored
    nowhere.
    """
    temperature: float | None = 0.7
    """Sampling temperature."""
    top_p: float | None = None
    """Nucleus sampling: the probability mass to sample from."""
    max_tokens: int | None = 1024
    """Tokens of one answer at most; null: no bound. Reasoning models take `max_completion_tokens`
    in `extra_body` instead; where that is set, it is sent alone.
    """
    seed: int | None = None
    """Sampling seed. The number of the sample is added, so that two answers to one question differ.
    """
    strict_model: bool = False
    """true: an answer that names another model than `model`, or none, is refused: a fallback of a
    router, and also "gpt-4o-2024-08-06" for "gpt-4o". false: it is taken and counted.
    """
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Further settings that a server takes, such as {chat_template_kwargs: {enable_thinking:
    false}}.
    """
    length_retry_factor: float = 2.0
    """An answer cut at max_tokens is asked for once more with this multiple of max_tokens; 1:
    never.
    """
    attempts: int = 3
    """Requests per call at most."""
    attempt_deadline: float = 60.0
    """Seconds for one request, however slowly the server sends."""
    deadline: float = 120.0
    """Seconds for one conversation, retries and the waits between them included. The clock starts
    once it has one of the `concurrency` slots and the rates let it pass.
    """
    step_deadline: float = 300.0
    """Seconds for all conversations of a training step together, waits for slots and rate limits
    included.
    """
    concurrency: int = 8
    """Calls at a time, over all ranks of a run on one machine. The rates are shared in the same
    way.
    """
    requests_per_minute: float | None = None
    """Requests per minute at most; null: no bound."""
    tokens_per_minute: float | None = None
    """Tokens of prompts and answers per minute at most; null: no bound. A running request counts at
    its maximum.
    """
    circuit_failures: int = 8
    """After this many failed conversations in a row (network, 5xx, unreadable answers) none is sent
    for `circuit_seconds`; then one, as a probe.
    """
    circuit_seconds: float = 60.0
    """Seconds for which the circuit stays open."""
    on_failure: Literal["skip", "stop"] = "skip"
    """skip: the row goes uncritiqued, counted with its reason. stop: the run ends with the reason,
    for anything but an answer without usable text.
    """
    cache: bool | str = True
    """true: answers are kept in the run's folder. A path: in this file, which runs may share.
    false: nowhere, and a killed run is not continued exactly.
    """
    caps: Caps = field(default_factory=Caps)
    """The most that the run may spend on this critic."""
    prompt_price: float = 0.0
    """US dollars per million prompt tokens. Where a router reports a larger cost, that counts."""
    completion_price: float = 0.0
    """US dollars per million tokens of answers."""
    cached_prompt_price: float | None = None
    """US dollars per million prompt tokens that the server had cached; null: as `prompt_price`."""
    price_share: float = 1.0
    """Share of these prices that is charged: .5 for a batch or flex tier that `extra_body` or the
    endpoint stands for.
    """

    def __post_init__(self) -> None:
        """Check every field. Raises ValueError for what cannot work."""
        self._check_address()
        self._check_numbers()
        self._check_caps()
        self._check_extra_body()
        if not isinstance(self.strict_model, bool):
            raise ValueError(f"strict_model: got {self.strict_model!r}, expected true or false")
        if self.on_failure not in ("skip", "stop"):
            raise ValueError(f"on_failure: got {self.on_failure!r}, expected skip or stop")
        self._check_cache()

    def _check_extra_body(self) -> None:
        """Raises ValueError for a key that the client sets itself."""
        body = self.extra_body
        refuse_secrets(body, "extra_body")
        if not isinstance(body, Mapping) or set(body) & set(RESERVED_BODY_KEYS):
            raise ValueError(
                f"extra_body: got {body!r}, expected a mapping without "
                f"{', '.join(RESERVED_BODY_KEYS)}: one call asks for one whole answer"
            )

    def _check_cache(self) -> None:
        """Raises ValueError for a path that holds something else than a cache."""
        if not isinstance(self.cache, bool | str) or self.cache == "":
            raise ValueError(
                f"cache: got {self.cache!r}, expected true, false or the path of a file"
            )
        path = Path(str(self.cache)).expanduser()
        if not isinstance(self.cache, str) or not path.exists():
            return
        # A damaged cache is moved aside to begin a new one. Somebody's other file must not be.
        if not path.is_file() or _first_bytes(path) not in (b"", SQLITE_HEADER):
            raise ValueError(
                f"cache: {self.cache} exists and is no cache that can be read; "
                "give another path, or move it away"
            )

    def _check_address(self) -> None:
        """Raises ValueError for an address that is incomplete or holds a secret, or a key in place
        of its variable's name.
        """
        address = self.base_url
        if not isinstance(address, str):
            raise ValueError(f"base_url: got a {type(address).__name__}, expected an address")
        # The address is stored with the run's settings, and keys are not.
        fault = base_url_fault(address)
        if fault:
            raise ValueError(f"base_url: {fault}")
        if not _is_web_address(address):
            raise ValueError(
                f"base_url is {address!r}; "
                "give the address up to its version, such as http://127.0.0.1:8000/v1"
            )
        fault = variable_fault(self.api_key_env)
        if fault:
            raise ValueError(fault)

    def _check_numbers(self) -> None:
        """Raises ValueError for a number out of range."""
        cached_price = self.cached_prompt_price or 0.0
        prices = (self.prompt_price, self.completion_price, cached_price, self.price_share)
        if not all(math.isfinite(price) and price >= 0 for price in prices):
            raise ValueError(
                "got prompt_price, completion_price, cached_prompt_price, price_share "
                f"{prices}; expected numbers, none negative"
            )
        for name in POSITIVE:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name}: got {value}, expected a positive number")
        temperature = self.temperature
        if temperature is not None and not 0 <= temperature < math.inf:
            raise ValueError(f"temperature: got {temperature}, expected a number from 0")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: got {self.top_p}, expected a number above 0 and at most 1")
        if not 1 <= self.length_retry_factor <= 16:
            raise ValueError(
                f"length_retry_factor: got {self.length_retry_factor}, expected 1 (never) to 16"
            )

    def _check_caps(self) -> None:
        """Raises ValueError for a cap that is no number or that could not bind."""
        caps = self.caps
        for name in ("max_requests", "max_tokens", "max_cost"):
            value = getattr(caps, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(
                    f"caps.{name}: got {value}, expected a number from 0, or nothing for no cap"
                )
        if caps.max_cost is not None and not self.prompt_price + self.completion_price:
            raise ValueError(
                "caps.max_cost: no call costs anything without prices; "
                "give prompt_price and completion_price"
            )
        if self.bounds_answers and self.answer_tokens() is None:
            raise ValueError(
                "caps: an answer without max_tokens may cost anything; give max_tokens"
            )

    @property
    def local(self) -> bool:
        """Whether the server is on this machine."""
        return urlsplit(self.base_url).hostname in LOOPBACK

    @property
    def bounds_answers(self) -> bool:
        """Whether a cap is on tokens or on dollars."""
        return self.caps.max_tokens is not None or self.caps.max_cost is not None

    @property
    def retries_cut_answers(self) -> bool:
        """Whether an answer that was cut at max_tokens is asked for once more."""
        return self.length_retry_factor > 1 and self.answer_tokens() is not None

    def key(self) -> str:
        """The API key, read from the environment at each call and stored nowhere.

        Returns:
            The key, or "none" if it is not set and the server is on this machine.

        Raises:
            ValueError: the variable is not set, or holds what cannot be sent. The message does not
                show it.
        """
        key = os.environ.get(self.api_key_env, "").strip()
        if not key and not self.local:
            raise ValueError(
                f"{self.base_url} needs a key, and ${self.api_key_env} is not set; "
                "set it, to any word where the server asks for none"
            )
        # A header holds printable ASCII only. The HTTP library's own error would quote the key.
        if not (key.isascii() and key.isprintable()):
            raise ValueError(
                f"${self.api_key_env} holds a line break, or another character that no key has "
                "(only printable ASCII can be sent); set it anew"
            )
        return key or "none"

    # ---- a request -------------------------------------------------------------------------------

    def answer_tokens(self, factor: float = 1.0) -> int | None:
        """Tokens that an answer may have, `factor` times the setting; None for no bound."""
        # Reasoning models take their bound under another name, which only extra_body can hold.
        bound = self.extra_body.get("max_tokens", self.max_tokens)
        bound = self.extra_body.get("max_completion_tokens", bound)
        if bound is None:
            return None
        return int(bound * factor)

    def other_model(self, named: str) -> str:
        """The model that an answer names if it is not the one asked for, "" if it is.

        No spelling is taken for another: the alias of a dated version, the prefix of a provider and
        the tag of a quantization all stand for weights that may differ.
        """
        if named == self.model.strip():
            return ""
        return named or NO_NAME

    def request(
        self, messages: Sequence[Message], sample: int = 0, factor: float = 1.0
    ) -> dict[str, Any]:
        """The body of a request.

        Args:
            messages: the conversation.
            sample: number of the answer among those to the same conversation.
            factor: multiple of the bound on the answer's tokens.
        """
        seed = None if self.seed is None else self.seed + sample
        max_tokens = self.max_tokens
        if self.extra_body.get("max_completion_tokens") is not None:
            # OpenAI refuses a request with both bounds.
            max_tokens = None
        settings: dict[str, Any] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": max_tokens,
            "seed": seed,
        }
        settings.update(self.extra_body)
        for name in ("max_tokens", "max_completion_tokens"):
            if factor != 1.0 and settings.get(name) is not None:
                settings[name] = int(settings[name] * factor)
        body: dict[str, Any] = {"model": self.model, "messages": list(messages)}
        for name, value in settings.items():
            # So a null in extra_body takes a setting out that a model refuses.
            if value is not None:
                body[name] = value
        return body

    # ---- what it costs ---------------------------------------------------------------------------

    def max_usage(self, messages: Sequence[Message], factor: float = 1.0) -> Usage:
        """The most that a request may cost, which the ledger reserves.

        Args:
            messages: the conversation.
            factor: multiple of the bound on the answer's tokens.

        Returns:
            Tokens with their price. Without a bound on the answer its tokens are 0.
        """
        prompt_tokens = 0
        for message in messages:
            # No tokenizer makes more tokens than there are UTF-8 bytes.
            bytes_of_text = message["content"].encode(errors="surrogatepass")
            prompt_tokens += len(bytes_of_text) + MESSAGE_TOKENS
        if self.extra_body:
            # It may hold a JSON schema, say, which a server may put into the prompt.
            prompt_tokens += len(json.dumps(self.extra_body, default=str))
        cached_tokens = 0
        if (self.cached_prompt_price or 0.0) > self.prompt_price:
            cached_tokens = prompt_tokens
        most = Usage(
            prompt_tokens, self.answer_tokens(factor) or 0, cached_prompt_tokens=cached_tokens
        )
        return self.with_price(most)

    def billed_usage(
        self, reported: Usage | PartialUsage | None, most: Usage, size: int, text: str = ""
    ) -> Usage:
        """The usage that an answer counts as.

        Args:
            reported: the server's report; None without one.
            most: what was reserved for the request.
            size: bytes of the response.
            text: text of the answer.

        Returns:
            The report if it is plausible, with the reservation's counts for missing ones. Else the
            reservation, or the bytes of a text that is too long for it, marked as estimated.
        """
        if isinstance(reported, PartialUsage):
            reported = reported.fill(most)
        if reported is not None and self.is_plausible(reported, most):
            return self.with_price(reported)
        # Without max_tokens nothing was reserved for the answer. It has fewer tokens than bytes.
        completion_tokens = most.completion_tokens or size
        text_bytes = len(text.encode(errors="surrogatepass"))
        if text_bytes > LONGEST_TOKEN_BYTES * completion_tokens:
            completion_tokens = text_bytes
        return self.with_price(replace(most, completion_tokens=completion_tokens, estimated=1))

    def is_plausible(self, reported: Usage, most: Usage) -> bool:
        """Whether a report is near what was reserved (`USAGE_SLACK_TOKENS`)."""
        # One absurd report would use up the caps and rates for the rest of the run.
        max_prompt_tokens = most.prompt_tokens + USAGE_SLACK_TOKENS
        max_completion_tokens = most.completion_tokens + USAGE_SLACK_TOKENS
        return (
            reported.prompt_tokens <= max_prompt_tokens
            and reported.completion_tokens <= max_completion_tokens
        )

    def with_price(self, usage: Usage) -> Usage:
        """The usage with its price in US dollars: by the prices, or what the server charged.

        The larger of the two: a router may take a dearer provider, and its `cost` may leave out
        what the provider charges to a key of its user.
        """
        cached_price = self.cached_prompt_price
        if cached_price is None:
            cached_price = self.prompt_price
        fresh_tokens = usage.prompt_tokens - usage.cached_prompt_tokens
        usd = (
            fresh_tokens * self.prompt_price
            + usage.cached_prompt_tokens * cached_price
            + usage.completion_tokens * self.completion_price
        )
        return replace(usage, usd=max(usage.usd, self.price_share * usd / 1e6))


def _is_web_address(address: str) -> bool:
    try:
        parts = urlsplit(address)
        # Reading the port checks it: "http://host:/" has an empty one.
        is_empty_port = parts.netloc.endswith(":") or parts.port == 0
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not is_empty_port


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(len(SQLITE_HEADER))
    except OSError:
        return b"not readable"
