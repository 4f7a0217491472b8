"""Different problems of a world, one after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

MOST_REPEATS = 20_000
"""That many known problems in a row: the family has few others, or none."""


class Asked(Protocol):
    """A problem with a question."""

    @property
    def question(self) -> str:
        """The question's text."""


P = TypeVar("P", bound=Asked)


def draw_different(draw: Callable[[int], P], count: int, source: str) -> list[P]:
    """Draw problems with different questions.

    Args:
        draw: How many there are so far -> a problem, which may be one of them.
        count: number of problems.
        source: world, family and split in words, for the error.

    Raises:
        ValueError: `MOST_REPEATS` draws in a row were known.
    """
    by_question: dict[str, P] = {}
    repeats = 0
    while len(by_question) < count:
        problem = draw(len(by_question))
        repeats += 1
        if problem.question not in by_question:
            repeats = 0
        by_question[problem.question] = problem
        if repeats > MOST_REPEATS:
            raise ValueError(
                f"{source}: got {count} problems, expected at most {len(by_question)}: "
                "ask for fewer"
            )
    return list(by_question.values())
