"""Failed attempts -> critiques, one each, in order; a critic never raises for a single item and never sets a reward.

Kinds: `none`, `retry`, `indicative`, `ground_truth`, `oracle`, `shuffled`, `noisy`, `self`, `api`. A call that fails stays failed: there is no fallback to
another kind, which would silently turn one arm of a comparison into another. Left out for now: local and python critics, cache, ledger, votes.
"""

from __future__ import annotations

import hashlib
import inspect
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from critique_rl.chat import ApiChat, PolicyChat, Reply
from critique_rl.config import ConfigError, check_keys, suggest
from critique_rl.prompts import render
from critique_rl.splits import uniform
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
class NoisyCritic:
    """Dose-response: `inner`'s words, but with probability `wrong` those of `other`. Drawn from seed, question and attempt, so that a replay draws the same."""

    inner: Critic
    other: Critic
    wrong: float
    seed: int = 0
    name: str = "noisy"

    def critique(self, attempts: Sequence[Attempt]) -> list[Critique]:
        wrong = [uniform(f"noisy/{self.seed}/{attempt.question}/{attempt.text}") < self.wrong for attempt in attempts]
        said = {flag: iter(critic.critique([a for a, w in zip(attempts, wrong, strict=True) if w is flag])) for flag, critic in self._by_flag()}
        return [replace(next(said[flag]), critic=self.name) for flag in wrong]

    def _by_flag(self) -> tuple[tuple[bool, Critic], ...]:
        return (False, self.inner), (True, self.other)


@dataclass(frozen=True)
class ChatCritic:
    """A model writes a chain-of-thought critique: behind an OpenAI-compatible endpoint, or the policy itself. The attempt is fenced in its prompt as data."""

    chat: ApiChat | PolicyChat
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
        "oracle": lambda reworded=False: OracleCritic(_oracle(task, reworded)),
        "shuffled": lambda: ShuffledCritic(_oracle(task), task.train, seed),
        "noisy": lambda critic, wrong: NoisyCritic(_inner(critic, task, seed), ShuffledCritic(_oracle(task), task.train, seed), _share(wrong), seed),
        "self": lambda: ChatCritic(PolicyChat(), f"{task.prompts}critique", "self"),
        "api": lambda **chat: ChatCritic(ApiChat(**chat), f"{task.prompts}critique"),
    }
    kind = str(spec.get("kind"))
    if kind not in kinds:
        raise ConfigError(f"critic: unknown kind {kind!r}; {suggest(kind, kinds)}")
    known = {"api": inspect.signature(ApiChat).parameters, "noisy": ("critic", "wrong"), "oracle": ("reworded",)}
    check_keys(options, known.get(kind, ()), f"critic {kind}")
    try:
        return kinds[kind](**options)
    except TypeError as error:
        raise ConfigError(f"critic {kind}: {error}") from error


def _inner(spec: Any, task: Task, seed: int) -> Critic:
    if not isinstance(spec, Mapping) or spec.get("kind") in (None, "none", "self", "noisy"):
        raise ConfigError(f"critic noisy, critic: got {spec!r}, expected another critic's section, such as {{kind: oracle}}")
    return build_critic(spec, task, seed)


def _share(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ConfigError(f"critic noisy, wrong: got {value!r}, expected the share of wrong critiques, from 0 to 1")
    return float(value)


def _oracle(task: Task, reworded: Any = False) -> Callable[[Attempt], str]:
    if not isinstance(reworded, bool):
        raise ConfigError(f"critic oracle, reworded: got {reworded!r}, expected true or false")
    if task.oracle is None:
        raise ConfigError(f"task {task.name} has no oracle (no checker of its own that explains); use another critic, such as {{kind: api, base_url: ...}}")
    if reworded and task.reworded is None:
        raise ConfigError(f"critic oracle, reworded: task {task.name} has no other words for its critiques; lab/chain has")
    return task.reworded if reworded else task.oracle
