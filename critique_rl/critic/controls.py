"""Critics without a model: controls with no words, fixed words or wrong words, and the oracle.

Kinds: `retry`, `indicative`, `ground_truth`, `oracle`, `shuffled`, `noisy`. Random draws are hashes
of seed, question and attempt, so a continued run draws the same.
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
from critique_rl.tasks.answer_text import told_answer
from critique_rl.types import Attempt, Critique

MAX_DRAWS = 100
"""Problems that `shuffled` draws until one fits. Then the attempt is skipped."""


@dataclass(frozen=True)
class RetryCritic:
    """Control: no verdict and no words. The policy sees its attempt and tries again."""

    name: str = "retry"

    def critique(self, attempts: Sequence[Attempt]) -> list[Critique]:
        """Critiques without text, one per attempt."""
        return [Critique("", self.name) for _ in attempts]


@dataclass(frozen=True)
class TemplateCritic:
    """A fixed text: the kinds `indicative` and `ground_truth` (Critique-GRPO, section 3)."""

    name: str
    template: str
    """Name of a template in prompts/."""
    needs_answer: bool = False
    """Whether the template contains the row's answer. A row without it is skipped."""

    def critique(self, attempts: Sequence[Attempt]) -> list[Critique]:
        """One text per attempt, filled with the row's answer."""
        return [self._critique_one(attempt) for attempt in attempts]

    def _critique_one(self, attempt: Attempt) -> Critique:
        answer = told_answer(attempt.row)
        if self.needs_answer and not answer:
            return Critique("", self.name, "skipped", "no_answer_column")
        text = render(self.template, answer=answer)
        return Critique(text, self.name, leaked=self.needs_answer)


@dataclass(frozen=True)
class OracleCritic:
    """The task's own checker in words."""

    words: Callable[[Attempt], str]
    """Attempt -> the words of the checker."""
    is_answer: IsAnswer
    """The task's verifier, which finds leaks."""
    name: str = "oracle"

    def critique(self, attempts: Sequence[Attempt]) -> list[Critique]:
        """The checker's words on each attempt. One on which it has none is skipped."""
        critiques = []
        for attempt in attempts:
            text = self.words(attempt)
            if not text:
                critiques.append(Critique("", self.name, "skipped", "oracle_has_no_words"))
                continue
            leaked = leaks_answer(text, attempt, self.is_answer)
            critiques.append(Critique(text, self.name, leaked=leaked))
        return critiques


@dataclass(frozen=True)
class ShuffledCritic:
    """Control: the oracle's words on another problem of the same family.

    It is drawn until its words differ from those on the attempt, and is never the attempt's own
    problem: an oracle that reads the attempt says something else about a blank one.
    """

    words: Callable[[Attempt], str]
    """Attempt -> the words of the task's checker."""
    rows: Sequence[Mapping[str, Any]]
    """Problems to draw from."""
    seed: int = 0
    name: str = "shuffled"

    def critique(self, attempts: Sequence[Attempt]) -> list[Critique]:
        """Words on another problem for each attempt."""
        return [self._critique_one(attempt) for attempt in attempts]

    def _critique_one(self, attempt: Attempt) -> Critique:
        key = f"{self.seed}/{attempt.question}/{attempt.text}"
        rng = random.Random(hashlib.sha256(key.encode()).hexdigest())
        true_words = self.words(attempt)
        for _ in range(MAX_DRAWS):
            row = rng.choice(self.rows)
            other = Attempt(str(row["question"]), "", attempt.verdict, row)
            text = self.words(other)
            # Of the same family: on a problem without traps the oracle says "all right". That would
            # be a mere verdict, which is another control.
            is_other = row["question"] != attempt.row.get("question", attempt.question)
            same_family = row.get("family") == attempt.row.get("family")
            if text and is_other and same_family and text != true_words:
                return Critique(text, self.name)
        return Critique("", self.name, "skipped", "no_other_problem")


@dataclass(frozen=True)
class NoisyCritic:
    """Dose-response: the words of `inner`, but with probability `wrong` those of `other`."""

    inner: Critic
    """Writes the right critiques."""
    other: Critic
    """Writes the wrong ones."""
    wrong: float
    """Probability of a wrong critique, from 0 to 1."""
    seed: int = 0
    name: str = "noisy"

    def critique(self, attempts: Sequence[Attempt]) -> list[Critique]:
        """One critique per attempt, from `inner` or `other`."""
        is_wrong = [self._draw_wrong(attempt) for attempt in attempts]
        # Each critic is asked once, with all of its attempts: a server answers them together.
        right = iter(self.inner.critique(_select(attempts, is_wrong, False)))
        wrong = iter(self.other.critique(_select(attempts, is_wrong, True)))
        critiques = []
        for flag in is_wrong:
            critique = next(wrong) if flag else next(right)
            critiques.append(replace(critique, critic=self.name))
        return critiques

    def _draw_wrong(self, attempt: Attempt) -> bool:
        key = f"noisy/{self.seed}/{attempt.question}/{attempt.text}"
        return uniform(key) < self.wrong

    def state_dict(self) -> dict[str, Any]:
        """The state of `inner` for a checkpoint, {} if it has none."""
        if hasattr(self.inner, "state_dict"):
            state: dict[str, Any] = self.inner.state_dict()
            return state
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put `inner` back to the state of a checkpoint."""
        if hasattr(self.inner, "load_state_dict"):
            self.inner.load_state_dict(state)


def _select(attempts: Sequence[Attempt], flags: Sequence[bool], wanted: bool) -> list[Attempt]:
    return [attempt for attempt, flag in zip(attempts, flags, strict=True) if flag is wanted]
