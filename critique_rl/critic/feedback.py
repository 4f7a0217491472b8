"""A verifier's own words as critiques: what of its verdict a policy is told.

    values    the whole reason: `f(-3) gave 5, expected 8`
    message   the error alone: `AssertionError`, `ZeroDivisionError: division by zero`
    name      which test failed: `test 2 failed`
    verdict   that the answer is wrong

`message` and `name` need a verdict with details (`verifier: {kind: tests}`, or one of yours).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from critique_rl.hashing import uniform
from critique_rl.tasks.task import Task
from critique_rl.tasks.workers.verifier import WorkerVerifier
from critique_rl.types import Attempt, Critique

SHOWS = ("values", "message", "name", "verdict")
PROBES = 3
"""Rows on which a verifier is asked whether it explains."""
Words = Callable[[Attempt], str]


def feedback_words(show: str) -> Words:
    """What the verdict on an attempt says.

    Args:
        show: One of `SHOWS`.

    Returns:
        Attempt -> words; "" where its verdict has none of that kind.
    """

    def words(attempt: Attempt) -> str:
        verdict = attempt.verdict
        details = verdict.details
        match show:
            case "values":
                return verdict.reason
            case "message":
                return str(details.get("error", ""))
            case "name":
                test = details.get("test")
                return f"{test} failed" if test else ""
            case _:
                return "wrong"

    return words


def explanation_fault(task: Task) -> str:
    """Why the task's verifier cannot be an oracle; "" where its wrong verdicts have reasons.

    It is asked about answers that are wrong in most tasks, on some training rows: an empty one, and
    another row's.
    """
    verifier = task.verifier
    is_users = False
    if isinstance(verifier, WorkerVerifier):
        if verifier.explains:
            return ""
        is_users = True
    lost = ""
    has_judged = False
    rows = task.train[:PROBES]
    for row, other in zip(rows, reversed(rows), strict=True):
        for text in ("", str(other.get("answer", ""))):
            verdict = verifier(text, row)
            # Rules give reasons for what they cannot read, and none for what is wrong.
            counts = verdict.failed if is_users else verdict.outcome == "wrong"
            if counts and verdict.reason:
                return ""
            if verdict.outcome == "unscored":
                lost = verdict.reason
            else:
                has_judged = True
    if lost and not has_judged:
        return f"its verifier judged no row that it was tried on ({lost})"
    return "a verifier whose wrong verdicts have no reason"


@dataclass(frozen=True)
class ShuffledFeedback:
    """Control: the verifier's words on another failed attempt of the step, at another question of
    the same family. An attempt without such another one is skipped.
    """

    words: Words
    seed: int = 0
    name: str = "shuffled"

    def critique(self, attempts: Sequence[Attempt]) -> list[Critique]:
        """Words on another attempt for each."""
        texts = [self.words(attempt) for attempt in attempts]
        critiques = []
        for attempt, words in zip(attempts, texts, strict=True):
            others = []
            for other, text in zip(attempts, texts, strict=True):
                is_other = other.question != attempt.question
                same_family = other.row.get("family") == attempt.row.get("family")
                if not (is_other and same_family):
                    continue
                if text and text != words:
                    others.append(text)
            critique = self._one_of(others, attempt)
            critiques.append(critique)
        return critiques

    def _one_of(self, others: Sequence[str], attempt: Attempt) -> Critique:
        if not others:
            return Critique("", self.name, "skipped", "no_other_problem")
        share = uniform(f"{self.seed}/{attempt.question}/{attempt.text}")
        place = int(share * len(others))
        return Critique(others[place], self.name)
