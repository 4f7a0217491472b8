"""A reward and a critic of known behaviour, for tests of distillation and presets."""

from __future__ import annotations

from itertools import cycle

from datasets import Dataset

from critique_rl import CritiqueGRPOTrainer
from critique_rl.types import Critique

QUESTIONS = ("3 A-7 B+9", "4 A+8")
SOLUTIONS = ("A-7=-4\nB+9=5\n#5", "A+8=12\n#12")
WORDS = "A sign lost"

DATA = Dataset.from_list(
    [
        {"prompt": [{"role": "user", "content": q}], "question": q, "answer": "5", "solution": s}
        for q, s in zip(QUESTIONS, SOLUTIONS, strict=True)
    ]
    * 4
)


class Words:
    """A critic that always says the same."""

    name = "words"

    def __init__(self, text: str = WORDS):
        self.text = text

    def critique(self, attempts):
        return [Critique(self.text, self.name) for _ in attempts]


class WordsPerProblem:
    """A critic that says the same about each attempt on one problem: its question, backwards."""

    name = "words per problem"

    def critique(self, attempts):
        return [Critique(attempt.question[::-1], self.name) for attempt in attempts]


class Turns:
    """Rewards of each call in turn, from the front: of rollouts, then of candidates, then of
    rollouts again.
    """

    __name__ = "turns"

    def __init__(self, *turns: list[float | None]):
        self.turns = cycle(turns)

    def __call__(self, completions, **columns):
        rewards = next(self.turns)
        assert len(completions) <= len(rewards), f"{len(completions)} rows, {len(rewards)} rewards"
        return rewards[: len(completions)]


def generated(trainer: CritiqueGRPOTrainer, rows=None) -> dict:
    """One generation batch: a group of each of the first two questions, or of `rows`. The trainer
    is left ready for one micro batch's loss.
    """
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    return trainer._generate_and_score_completions(
        [dict(row) for row in rows or DATA.select(range(2)) for _ in range(trainer.num_generations)]
    )


def completion_text(trainer: CritiqueGRPOTrainer, output: dict, row: int) -> str:
    return trainer.processing_class.decode(output["completion_ids"][row], skip_special_tokens=True)
