"""A task: its rows, the verifier that judges them, and its prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from critique_rl.tasks.row import Row
from critique_rl.tasks.workers.pool import UNJUDGED
from critique_rl.tasks.workers.verifier import WorkerVerifier
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
class Support:
    """The answers of a world that can be listed, so that a policy's mass on them is a sum."""

    answers: Callable[[Row], list[str]]
    """The listed answers to a row. Their spelling in tokens is unique."""
    is_near_miss: Callable[[str, Row], bool]
    """(answer, row) -> whether it is nearly right."""
    near_miss: str
    """The rule of `is_near_miss` in words."""
    mark: str = ""
    """An answer is listed up to this text, which it holds; what follows is free, and belongs to
    the same mass. "": listed answers are complete.
    """
    judged_with: str = ""
    """What follows `mark` where a listed answer is judged."""
    true_answers: Callable[[Row], list[str]] | None = None
    """The listed answers without a mistake, where others are right by luck; None: all right ones.
    """

    def listed_part(self, text: str) -> str | None:
        """The part of a sampled answer that a list can hold; None for an answer without one."""
        if not self.mark:
            return text
        start, mark, _ = text.partition(self.mark)
        # Without the mark it could be the beginning of another listed answer, and be counted twice.
        return start + mark if mark else None


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
    support: Support | None = None
    """The answers that can be listed (`experiment.flow`); None: masses are estimated."""

    def is_answer(self, piece: str, row: Row) -> bool | None:
        """Whether the verifier takes a piece of a text, in some form of an answer, as right; None
        where it could not be judged.
        """
        judge = self.verifier
        forms: tuple[str, ...] = ANSWER_FORMS
        if isinstance(judge, WorkerVerifier):
            # A call to another process takes a while, and needs one of the first two forms.
            forms = ANSWER_FORMS[:2]
            judge = judge.try_once
        reason = ""
        for form in forms:
            verdict = judge(form.replace("...", piece), row)
            if verdict.outcome == "right":
                return True
            if verdict.reason in UNJUDGED:
                reason = verdict.reason
        return None if reason else False
