"""Chats: a server with the OpenAI chat interface, a transformers model, or the policy itself.

Each has `answer(conversations) -> replies`, one each, in order. No failure turns into an answer of
another kind.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from critique_rl.config.terminal import say
from critique_rl.critic.api.calls import begin_all
from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.api.ledger import open_ledger
from critique_rl.critic.api.scoring.question import Question
from critique_rl.critic.contract import CriticFailed, Reply, read_answer
from critique_rl.critic.thoughts import sampled_answer
from critique_rl.policy import load_policy, resolve_model
from critique_rl.prompts import special_tokens
from critique_rl.types import Message, Usage

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ApiChat:
    """A chat model behind an endpoint. Text leaves this process for the endpoint's address only."""

    endpoint: Endpoint
    """The server, its limits and prices."""
    folder: Path | None = None
    """Keeps answers, spending and rates. All ranks of a run give the same folder. None: they last
    as long as this object.
    """
    role: str = "critic"
    """The name that lines on the terminal give it."""

    def answer(self, conversations: Sequence[Question]) -> list[Reply]:
        """Replies to the conversations. One that fails gets a failed reply.

        Raises:
            ValueError: the key is missing or cannot be sent.
            CriticFailed: a call failed and `on_failure` is stop, or the ledger cannot be read.
        """
        wait = self.begin(conversations)
        return wait()

    def begin(self, conversations: Sequence[Question]) -> Callable[[], list[Reply]]:
        """Send the conversations.

        Returns:
            A function that waits for the replies, as `answer` returns them or raises.

        Raises:
            ValueError: the key is missing or cannot be sent.
        """
        # Before the calls and also without any: a missing key is an error, not a failed call.
        self.endpoint.key()
        if not conversations:
            return list
        wait = begin_all(self.endpoint, self._folder, conversations)

        def wait_for_replies() -> list[Reply]:
            replies = wait()
            self._check(replies)
            return replies

        return wait_for_replies

    def _check(self, replies: Sequence[Reply]) -> None:
        """Say what is missing. Raises CriticFailed where nothing may be."""
        self._report_models(replies)
        missing = [reply for reply in replies if reply.unanswered]
        if missing:
            self._report(missing, len(replies))
        if missing and self.endpoint.on_failure == "stop":
            raise CriticFailed(self._stop_message(missing, len(replies)), replies)

    def _report(self, missing: Sequence[Reply], calls: int) -> None:
        # Metrics count reasons without a server's words; this line has the words.
        counts = Counter(reply.reason for reply in missing)
        parts = []
        for reason, count in counts.most_common():
            parts.append(f"{reason} ({count})")
        reasons = ", ".join(parts)
        say(f"{self._name}: {len(missing)} of {calls} calls gave no answer: {reasons}")

    def _report_models(self, replies: Sequence[Reply]) -> None:
        """Say once per model that another one than the one asked for answers."""
        counts = Counter(reply.model for reply in replies if reply.model)
        for model, count in counts.items():
            if model not in self._reported_models:
                self._reported_models.add(model)
                say(
                    f"{self._name}: {count} of {len(replies)} answers are of "
                    f"another model: asked for {self.endpoint.model!r}, they name {model!r}; "
                    "each is counted as other_model, and strict_model: true refuses them"
                )

    @property
    def _name(self) -> str:
        """Its role and address, as lines on the terminal begin."""
        return f"{self.role} {self.endpoint.base_url}"

    @cached_property
    def _reported_models(self) -> set[str]:
        return set()

    def _stop_message(self, missing: Sequence[Reply], calls: int) -> str:
        # The others were skipped because of the first failure, so its reason is the cause.
        failed = [reply for reply in missing if reply.status == "failed"]
        cause = failed[0] if failed else missing[0]
        return (
            f"{len(missing)} of {calls} calls of {self.endpoint.base_url} gave no answer, "
            f"and on_failure is stop: {cause.reason}"
        )

    def state_dict(self) -> dict[str, Any]:
        """The journal's position, for a checkpoint."""
        with open_ledger(self._folder / "ledger.sqlite", self.endpoint.caps) as ledger:
            return ledger.position()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a checkpoint. Answers paid for after it count once more as they did then.

        Args:
            state: from `state_dict`; {} for the start of the run.
        """
        with open_ledger(self._folder / "ledger.sqlite", self.endpoint.caps) as ledger:
            ledger.rewind(state)

    @property
    def _folder(self) -> Path:
        if self.folder is None:
            return Path(self._temporary_folder.name)
        return Path(self.folder)

    @cached_property
    def _temporary_folder(self) -> TemporaryDirectory[str]:
        return TemporaryDirectory(prefix="critique_rl-")


@dataclass(frozen=True)
class LocalChat:
    """A transformers model in this process; each rank holds a copy.

    Its sampling has its own random numbers. An answer depends on `seed` and on the conversations
    that are asked together, so a continued run reads the same.
    """

    model: str
    """A folder, a Hub id, or a name of `policy` such as "lab/critic" or "smollm2"."""
    temperature: float = 0.7
    """Sampling temperature; 0 is greedy."""
    top_p: float = 1.0
    """Nucleus sampling: the probability mass to sample from."""
    max_tokens: int = 512
    """Tokens of one answer at most."""
    batch: int = 64
    """Conversations per `generate` call."""
    dtype: str = "float32"
    """float32, bfloat16 or float16."""
    device: str | None = None
    """null: this rank's accelerator, else the CPU."""
    seed: int = 0
    """Sampling seed."""
    options: dict[str, Any] = field(default_factory=dict)
    """Passed to `from_pretrained`."""
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of its chat template, such as {enable_thinking: false}."""
    prompt_price: float = 0.0
    """US dollars per million prompt tokens: the cost of the machine that the model runs on."""
    completion_price: float = 0.0
    """US dollars per million tokens that it writes."""

    def __post_init__(self) -> None:
        """Check every field. Raises ValueError for what cannot work."""
        prices = (self.prompt_price, self.completion_price)
        if not all(0 <= price < math.inf for price in prices):
            raise ValueError(
                f"got prompt_price, completion_price {prices}; expected numbers, none negative"
            )
        counts_fit = min(self.max_tokens, self.batch) >= 1
        is_temperature = 0 <= self.temperature < math.inf
        if not counts_fit or not is_temperature or not 0 < self.top_p <= 1:
            raise ValueError(
                f"got max_tokens={self.max_tokens}, batch={self.batch}, "
                f"temperature={self.temperature}, top_p={self.top_p}; expected whole numbers "
                "from 1, a temperature from 0, and a top_p above 0 and at most 1"
            )
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype: got {self.dtype!r}, expected one of {', '.join(DTYPES)}")
        try:
            resolve_model(self.model)
        except FileNotFoundError as error:
            raise ValueError(f"model: {error}") from error

    def answer(self, conversations: Sequence[list[Message]]) -> list[Reply]:
        """Replies to the conversations. A prompt that leaves no room for an answer gets a failed
        reply.
        """
        # Imported here: it brings transformers, which only this kind of critic needs.
        from critique_rl.sampling.sample import prompt_lengths, sample
        from critique_rl.sampling.settings import Sampling

        if not conversations:
            return []
        model, tokenizer = self._model_and_tokenizer
        lengths = prompt_lengths(tokenizer, conversations, self.chat_template_kwargs)
        context = getattr(model.config, "max_position_embeddings", None) or 1 << 30
        fits = [i for i, length in enumerate(lengths) if length + self.max_tokens <= context]
        replies = [Reply("", "failed", "prompt_too_long") for _ in lengths]
        sampling = Sampling(
            self.temperature,
            self.top_p,
            self.max_tokens,
            self.batch,
            chat_template_kwargs=self.chat_template_kwargs,
        )
        prompts = [conversations[i] for i in fits]
        answers = sample(model, tokenizer, prompts, sampling, self._seed(conversations))
        for i, answer in zip(fits, answers, strict=True):
            usd = lengths[i] * self.prompt_price + answer.tokens * self.completion_price
            usage = Usage(lengths[i], answer.tokens, usd=usd / 1e6)
            cleaned = sampled_answer(
                tokenizer, answer.prompt_ids, answer.ids, answer.text, answer.truncated
            )
            replies[i] = read_answer(cleaned, answer.truncated, usage)
        return replies

    @property
    def specials(self) -> tuple[str, ...]:
        """Special tokens of its tokenizer, which are broken in an attempt."""
        _, tokenizer = self._model_and_tokenizer
        return special_tokens(tokenizer)

    def _seed(self, conversations: Sequence[list[Message]]) -> int:
        key = json.dumps([self.seed, list(conversations)])
        return int(hashlib.sha256(key.encode()).hexdigest()[:12], 16)

    @cached_property
    def _model_and_tokenizer(self) -> tuple[Any, Any]:
        """The model in evaluation mode, and its tokenizer."""
        import torch

        # A copy per rank: the number of conversations differs between ranks, and a model that is
        # sharded over them would need equal calls.
        options = {"dtype": getattr(torch, self.dtype)}
        options.update(self.options)
        loaded_model, tokenizer = load_policy(self.model, **options)
        # transformers wraps `to` in a decorator that hides its signature from mypy.
        model: Any = loaded_model
        return model.to(self.device or _default_device()).eval(), tokenizer


def _default_device() -> str:
    import torch

    if not torch.accelerator.is_available():
        return "cpu"
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None:
        return "cpu"
    # With its index: each rank has its own accelerator.
    return f"{accelerator.type}:{torch.accelerator.current_device_index()}"


@dataclass
class PolicyChat:
    """The policy in its present state of training."""

    sample: Callable[[Sequence[list[Message]]], list[Reply]] | None = None
    """Answers conversations. The trainer sets it to its own sampler, which counts the tokens."""
    specials: tuple[str, ...] = ()
    """Special tokens of the policy's tokenizer. The trainer sets them too."""

    def answer(self, conversations: Sequence[list[Message]]) -> list[Reply]:
        """Replies to the conversations. Call it on every rank, also without conversations: sampling
        may be a collective.

        Raises:
            ValueError: no trainer has set `sample`.
        """
        if self.sample is None:
            raise ValueError(
                "the self critic has no policy yet; "
                "give it to CritiqueGRPOTrainer(critic=...), which lends its own"
            )
        return self.sample(conversations)
