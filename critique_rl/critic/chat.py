"""Who answers messages: a server that speaks the OpenAI chat interface, a transformers model in
this process, or the policy itself.

Each has `answer(conversations) -> replies`, one each, in order. No failure turns into an answer of
another kind.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from critique_rl.critic.api.calls import answer_all
from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.api.ledger import open_ledger
from critique_rl.critic.contract import NO_TEXT_REASONS, CriticFailed, Reply, without_thinking
from critique_rl.policy import load_policy, resolve_model
from critique_rl.prompts import special_tokens
from critique_rl.types import Message, Usage

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ApiChat:
    """A chat model behind an endpoint. Text leaves this process, for the endpoint's address only.

    `folder` keeps answers, spending and rates; all ranks of a run give the same one. Without one
    they last as long as this object.
    """

    endpoint: Endpoint
    folder: Path | None = None

    def answer(self, conversations: Sequence[list[Message]]) -> list[Reply]:
        """A conversation that fails is a failed reply. ValueError without a key; CriticFailed for a
        failure where `on_failure` is stop.
        """
        self.endpoint.key()
        replies = answer_all(self.endpoint, self._folder, conversations) if conversations else []
        missing = [
            reply
            for reply in replies
            if reply.status != "ok" and reply.reason not in NO_TEXT_REASONS
        ]
        if missing:
            reasons = ", ".join(
                f"{reason} ({count})"
                for reason, count in Counter(reply.reason for reply in missing).most_common()
            )
            print(
                f"critic {self.endpoint.base_url}: {len(missing)} of {len(replies)} calls gave no answer: {reasons}",
                file=sys.stderr,
            )
        if missing and self.endpoint.on_failure == "stop":
            first = next((reply for reply in missing if reply.status == "failed"), missing[0])
            said = f"{len(missing)} of {len(replies)} calls of {self.endpoint.base_url} gave no critique, and on_failure is stop: {first.reason}"
            raise CriticFailed(said, replies)
        return replies

    def state_dict(self) -> dict[str, Any]:
        """Where its journal is, for a checkpoint."""
        with open_ledger(self._folder / "ledger.sqlite", self.endpoint.caps) as ledger:
            return ledger.position()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint, {} from the start: answers paid for after it count once more as
        they did then.
        """
        with open_ledger(self._folder / "ledger.sqlite", self.endpoint.caps) as ledger:
            ledger.rewind(state)

    @property
    def _folder(self) -> Path:
        return Path(self._temporary.name) if self.folder is None else Path(self.folder)

    @cached_property
    def _temporary(self) -> TemporaryDirectory:
        return TemporaryDirectory(prefix="critique_rl-")


@dataclass(frozen=True)
class LocalChat:
    """A transformers model in this process, a copy on each rank: calls differ in number between
    ranks, which a collective could not bear.

    Its randomness is its own: an answer depends on `seed` and on the conversations asked together,
    so a continued run reads the same.
    """

    model: str
    """A folder, a Hub id, or a name of `policy` such as "lab/critic" or "smollm2"."""
    temperature: float = 0.7
    """Of sampling; 0 is greedy."""
    top_p: float = 1.0
    """Of sampling."""
    max_tokens: int = 512
    """Of one answer."""
    batch: int = 64
    """Conversations a `generate` call."""
    dtype: str = "float32"
    """float32, bfloat16 or float16."""
    device: str | None = None
    """None: this rank's accelerator, else the CPU."""
    seed: int = 0
    """Of its own sampling."""
    options: dict[str, Any] = field(default_factory=dict)
    """Passed to `from_pretrained`."""
    prompt_price: float = 0.0
    """US dollars for a million prompt tokens: what the machine costs that it runs on."""
    completion_price: float = 0.0
    """US dollars a million tokens that it writes."""

    def __post_init__(self) -> None:
        if not (0 <= self.prompt_price < math.inf and 0 <= self.completion_price < math.inf):
            raise ValueError(
                f"got prompt_price, completion_price {(self.prompt_price, self.completion_price)}; expected numbers, none negative"
            )
        if min(self.max_tokens, self.batch) < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            given = f"max_tokens={self.max_tokens}, batch={self.batch}, temperature={self.temperature}, top_p={self.top_p}"
            raise ValueError(
                f"got {given}; expected whole numbers from 1, a temperature from 0, and a top_p above 0 and at most 1"
            )
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype: got {self.dtype!r}, expected one of {', '.join(DTYPES)}")
        try:
            resolve_model(self.model)
        except FileNotFoundError as error:
            raise ValueError(f"model: {error}") from error

    def answer(self, conversations: Sequence[list[Message]]) -> list[Reply]:
        """One reply to each conversation; a prompt that leaves no room for an answer is a failed
        one.
        """
        from critique_rl.sampling import Sampling, prompt_lengths, sample

        if not conversations:
            return []
        model, tokenizer = self._loaded
        lengths = prompt_lengths(tokenizer, conversations)
        context = getattr(model.config, "max_position_embeddings", None) or 1 << 30
        fits = [i for i, length in enumerate(lengths) if length + self.max_tokens <= context]
        replies = [Reply("", "failed", "prompt_too_long") for _ in lengths]
        sampling = Sampling(self.temperature, self.top_p, self.max_tokens, self.batch)
        for i, one in zip(
            fits,
            sample(
                model,
                tokenizer,
                [conversations[i] for i in fits],
                sampling,
                self._seed(conversations),
            ),
            strict=True,
        ):
            usd = (lengths[i] * self.prompt_price + one.tokens * self.completion_price) / 1e6
            replies[i] = _read(one.text, one.truncated, Usage(lengths[i], one.tokens, usd=usd))
        return replies

    @property
    def specials(self) -> tuple[str, ...]:
        """Special tokens of its tokenizer, which an attempt must not hold."""
        return special_tokens(self._loaded[1])

    def _seed(self, conversations: Sequence[list[Message]]) -> int:
        return int(
            hashlib.sha256(json.dumps([self.seed, list(conversations)]).encode()).hexdigest()[:12],
            16,
        )

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        import torch

        accelerator = (
            torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        )
        device = self.device or (
            f"{accelerator.type}:{torch.accelerator.current_device_index()}"
            if accelerator
            else "cpu"
        )
        model, tokenizer = load_policy(
            self.model, **{"dtype": getattr(torch, self.dtype), **self.options}
        )
        return model.to(device).eval(), tokenizer


def _read(text: str, cut: bool, usage: Usage) -> Reply:
    usable, reason = without_thinking(text), "length" if cut else ""
    return (
        Reply(usable, reason=reason, usage=usage)
        if usable
        else Reply("", "failed", reason or "empty", usage)
    )


@dataclass
class PolicyChat:
    """The policy as it is in training. The trainer puts in `sample`, which answers conversations
    with its own sampler and counts the tokens.
    """

    sample: Callable[[Sequence[list[Message]]], list[Reply]] | None = None
    specials: tuple[str, ...] = ()
    """Special tokens of the policy's tokenizer, put in with it."""

    def answer(self, conversations: Sequence[list[Message]]) -> list[Reply]:
        """Called on every rank, also without conversations: sampling may be a collective."""
        if self.sample is None:
            raise ValueError(
                "the self critic has no policy yet; give it to CritiqueGRPOTrainer(critic=...), which lends its own"
            )
        return self.sample(conversations)
