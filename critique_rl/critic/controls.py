"""Critics without a model: controls that say nothing, or something fixed, or something wrong, and
the oracle.

`retry`, `indicative`, `ground_truth`, `oracle`, `shuffled`, `noisy`. What is drawn is drawn by hash
from seed, question and attempt, so that a run that is continued draws the same.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from critique_rl.critic.contract import Critic
from critique_rl.critic.leaks import IsAnswer, leaks_answer
from critique_rl.hashing import uniform
from critique_rl.prompts import render
from critique_rl.types import Attempt, Critique


@dataclass(frozen=True)
class RetryCritic:
    """Control: no verdict, no words; the policy sees its attempt and tries again."""

    name: str = "retry"

    def critique(self, attempts: Sequence[Attempt]) -> list[Critique]:
        return [Critique("", self.name) for _ in attempts]


@dataclass(frozen=True)
class TemplateCritic:
    """`indicative` and `ground_truth` (Critique-GRPO, section 3): a fixed text, with the row's
    answer where the template asks for it.
    """

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
    is_answer: IsAnswer
    name: str = "oracle"

    def critique(self, attempts: Sequence[Attempt]) -> list[Critique]:
        return [
            Critique(text, self.name, leaked=leaks_answer(text, attempt, self.is_answer))
            for attempt in attempts
            for text in [self.words(attempt)]
        ]


@dataclass(frozen=True)
class ShuffledCritic:
    """Control: the oracle's words on another problem, drawn until they differ from those on this
    one (so: another trap set).
    """

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
    """Dose-response: `inner`'s words, but with probability `wrong` those of `other`. Drawn from
    seed, question and attempt, so that a replay draws the same.
    """

    inner: Critic
    other: Critic
    wrong: float
    seed: int = 0
    name: str = "noisy"

    def critique(self, attempts: Sequence[Attempt]) -> list[Critique]:
        wrong = [
            uniform(f"noisy/{self.seed}/{attempt.question}/{attempt.text}") < self.wrong
            for attempt in attempts
        ]
        said = {
            flag: iter(
                critic.critique([a for a, w in zip(attempts, wrong, strict=True) if w is flag])
            )
            for flag, critic in self._by_flag()
        }
        return [replace(next(said[flag]), critic=self.name) for flag in wrong]

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict() if hasattr(self.inner, "state_dict") else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if hasattr(self.inner, "load_state_dict"):
            self.inner.load_state_dict(state)

    def _by_flag(self) -> tuple[tuple[bool, Critic], ...]:
        return (False, self.inner), (True, self.other)
