"""Failed attempts -> critiques, one each, in order; a critic never raises for a single item and never sets a reward.

Kinds: `none`, `retry`, `indicative`, `ground_truth`, `oracle`, `shuffled`, `api`. A call that fails stays failed: there is no fallback to another kind,
which would silently turn one arm of a comparison into another. Left out for now: local, self, noisy and python critics, cache, ledger, votes.
"""

from __future__ import annotations

import hashlib
import inspect
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from critique_rl.chat import ApiChat, Reply
from critique_rl.config import ConfigError, check_keys, suggest
from critique_rl.prompts import render
from critique_rl.tasks import Task
from critique_rl.types import Attempt, Critique


class Critic(Protocol):
    """One method to write: critiques of failed attempts, one each, in order."""

    name: str

    def critique(self, attempts: Sequence[Attempt]) -> list[Critique]: ...


@dataclass(frozen=True)
class RetryCritic:
    """Control: no verdict, no words; the policy sees its attempt and tries again."""

    name: str = "retry"

    def critique(self, attempts: Sequence[Attempt]) -> list[Critique]:
        return [Critique("", self.name) for _ in attempts]


@dataclass(frozen=True)
class TemplateCritic:
    """`indicative` and `ground_truth` (Critique-GRPO, section 3): a fixed text, with the row's answer where the template asks for it."""

    name: str
    template: str
    needs_answer: bool = False

    def critique(self, attempts: Sequence[Attempt]) -> list[Critique]:
        return [self._one(attempt) for attempt in attempts]

    def _one(self, attempt: Attempt) -> Critique:
        answer = str(attempt.row.get("answer") or "")
        if self.needs_answer and not answer:
            return Critique("", self.name, "skipped", "no_answer_column")
        return Critique(render(self.template, answer=answer), self.name, leaked=self.needs_answer)


@dataclass(frozen=True)
class OracleCritic:
    """The task's own checker in words."""

    words: Callable[[Attempt], str]
    name: str = "oracle"

    def critique(self, attempts: Sequence[Attempt]) -> list[Critique]:
        return [Critique(text, self.name, leaked=leaks(text, attempt)) for attempt in attempts for text in [self.words(attempt)]]


@dataclass(frozen=True)
class ShuffledCritic:
    """Control: the oracle's words on another problem, drawn until they differ from those on this one (so: another trap set)."""

    words: Callable[[Attempt], str]
    rows: Sequence[Mapping[str, Any]]
    seed: int = 0
    name: str = "shuffled"

    def critique(self, attempts: Sequence[Attempt]) -> list[Critique]:
        return [self._one(attempt) for attempt in attempts]

    def _one(self, attempt: Attempt) -> Critique:
        key = f"{self.seed}/{attempt.question}/{attempt.text}"
        rng, own = random.Random(hashlib.sha256(key.encode()).hexdigest()), self.words(attempt)
        for _ in range(100):
            row = rng.choice(self.rows)
            text = self.words(Attempt(str(row["question"]), "", attempt.verdict, row))
            # "all right" would be a mere verdict, another control.
            if text != own and row.get("family") == attempt.row.get("family"):
                return Critique(text, self.name)
        return Critique("", self.name, "skipped", "no_other_problem")


@dataclass(frozen=True)
class ChatCritic:
    """A model behind an OpenAI-compatible endpoint writes a chain-of-thought critique; the attempt is fenced in its prompt as data."""

    chat: ApiChat
    template: str = "critique"
    name: str = "api"

    def critique(self, attempts: Sequence[Attempt]) -> list[Critique]:
        conversations = [[{"role": "user", "content": self._prompt(attempt)}] for attempt in attempts]
        replies = self.chat.answer(conversations)
        return [self._one(attempt, reply) for attempt, reply in zip(attempts, replies, strict=True)]

    def _prompt(self, attempt: Attempt) -> str:
        return render(self.template, question=attempt.question, attempt=attempt.text, reference=str(attempt.row.get("solution") or ""))

    def _one(self, attempt: Attempt, reply: Reply) -> Critique:
        text = re.sub(r"(?s)<think>.*?</think>", "", reply.text).strip()
        if reply.status == "failed" or not text:
            return Critique("", self.name, "failed", reply.reason or "empty", usage=reply.usage)
        return Critique(text, self.name, leaked=leaks(text, attempt), usage=reply.usage)


def leaks(text: str, attempt: Attempt) -> bool:
    """True where the critique holds the answer as a token of its own; the number of a step ("step 3") is none."""
    answer, rest = str(attempt.row.get("answer") or ""), re.sub(r"(?i)\b(?:steps?|lines?) \d+", "", text)
    return bool(answer) and re.search(rf"(?<![\w.+-]){re.escape(answer)}(?![\w])", rest) is not None


def build_critic(spec: Mapping[str, Any], task: Task, seed: int = 0) -> Critic | None:
    """A critic from a config's `critic:` section; None for kind "none". ConfigError for unknown kinds and keys."""
    options = {key: value for key, value in spec.items() if key != "kind"}
    kinds: dict[str, Callable[..., Critic | None]] = {
        "none": lambda: None,
        "retry": lambda: RetryCritic(),
        "indicative": lambda: TemplateCritic("indicative", f"{task.prompts}indicative"),
        "ground_truth": lambda: TemplateCritic("ground_truth", f"{task.prompts}ground_truth", needs_answer=True),
        "oracle": lambda: OracleCritic(_oracle(task)),
        "shuffled": lambda: ShuffledCritic(_oracle(task), task.train, seed),
        "api": lambda **chat: ChatCritic(ApiChat(**chat), f"{task.prompts}critique"),
    }
    kind = str(spec.get("kind"))
    if kind not in kinds:
        raise ConfigError(f"critic: unknown kind {kind!r}; {suggest(kind, kinds)}")
    check_keys(options, inspect.signature(ApiChat).parameters if kind == "api" else (), f"critic {kind}")
    try:
        return kinds[kind](**options)
    except TypeError as error:
        raise ConfigError(f"critic {kind}: {error}") from error


def _oracle(task: Task) -> Callable[[Attempt], str]:
    if task.oracle is None:
        raise ConfigError(f"task {task.name} has no oracle (no checker of its own that explains); use another critic, such as {{kind: api, base_url: ...}}")
    return task.oracle
