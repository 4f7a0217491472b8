"""A task: its rows, the verifier that judges them, and its prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from critique_rl.tasks.isolated_verifiers import WorkerVerifier
from critique_rl.tasks.row import Row
from critique_rl.types import Attempt, Verifier

ANSWER_FORMS = (
    "\\boxed{...}",
    "...",
    "#...",
    "</think><answer>...</answer><analysis></analysis><confidence>1</confidence>",
)
"""How an answer "..." is written for one verifier or another."""


Oracle = Callable[[Attempt], str]
"""The critique of an attempt, by rule."""
HeldOut = Callable[[str, int], list[Row]]
"""(split, problems per family) -> rows, the same for every seed."""


@dataclass(frozen=True)
class Task:
    """A task ready to train on."""

    name: str
    """Name in the pipeline, such as lab/chain."""
    train: list[Row]
    """Training rows in the order of the seed."""
    held_out: HeldOut
    """Rows of validation and test."""
    verifier: Verifier
    """Judges rollouts."""
    oracle: Oracle | None = None
    """The task's checker in words; None: it has none."""
    prompts: str = ""
    """Prefix of template names: "" or "lab/"."""
    reworded_oracle: Oracle | None = None
    """The checker in words that the embedded base never read."""
    evaluator: Verifier | None = None
    """Judges evaluations where their rule differs from training's (`lab/facts`); None: the
    verifier.
    """
    abstains: bool = False
    """Answers may abstain: evaluations measure truthfulness even where none did."""

    def is_answer(self, piece: str, row: Row) -> bool:
        """True where the verifier takes a piece of a text, in some form of an answer, as right."""
        # A call to another process takes a while, and needs one of the first two forms.
        count = 2 if isinstance(self.verifier, WorkerVerifier) else len(ANSWER_FORMS)
        for form in ANSWER_FORMS[:count]:
            text = form.replace("...", piece)
            verdict = self.verifier(text, row)
            if verdict.outcome == "right":
                return True
        return False
