"""A task: rows, the verifier that judges them, and how it is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from critique_rl.tasks.isolated_verifiers import WorkerVerifier
from critique_rl.types import Attempt, Verifier

Row = Mapping[str, Any]

FORMS = (
    "\\boxed{...}",
    "...",
    "#...",
    "</think><answer>...</answer><analysis></analysis><confidence>1</confidence>",
)
"""How an answer is written for one verifier or another; those in a process of their own take a
while, and one of the first two.
"""


@dataclass(frozen=True)
class Task:
    """A task ready to train on: its rows by split, its verifier, its own checker in words (None if
    it has none), its folder of prompts.
    """

    name: str
    train: list[Row]
    held_out: Callable[[str, int], list[Row]]
    """(split, problems a family) -> rows."""
    verifier: Verifier
    oracle: Callable[[Attempt], str] | None = None
    prompts: str = ""
    """Prefix of template names: "" or "lab/"."""
    reworded: Callable[[Attempt], str] | None = None
    """The checker in words that the embedded base never read."""
    evaluator: Verifier | None = None
    """Judges evaluations, where they are judged by another rule than training is (`lab/facts`);
    None: the verifier.
    """
    abstains: bool = False
    """Answers may abstain: evaluations measure truthfulness even where none did."""

    def is_answer(self, piece: str, row: Row) -> bool:
        """True where the task's verifier takes this piece of a text, written in one of the forms of
        an answer, as right.
        """
        forms = FORMS[:2] if isinstance(self.verifier, WorkerVerifier) else FORMS
        return any(
            self.verifier(form.replace("...", piece), row).outcome == "right" for form in forms
        )
