"""Examples of a warm start on word problems: how to answer, and how to refine by a critique.

All are made of training questions that have a working. In half of the refinements the critique
names some working of the question's numbers, right or wrong, and the answer follows it: true
critiques alone would teach the model to overlook them. `pipelines/warm_start.py --world words`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from critique_rl.prompts import render
from critique_rl.tasks.row import Row
from critique_rl.tasks.words.oracle import directive
from critique_rl.tasks.words.workings import (
    Working,
    decimal,
    derive_working,
    other_workings,
    written,
)

SOLVE = 0.4
"""Share of the examples that are plain solutions."""
FOLLOW = 0.5
"""Share of the refinements whose critique names any working."""
REFINE_TEMPLATE = "lab/refine"
"""Of these examples, and so of the pipelines that start from them: the shortest one."""


def warm_start_example(rows: Sequence[Row], rng: random.Random) -> tuple[str, str]:
    """Draw one example.

    Args:
        rows: Training rows that have a working.
        rng: Draws.

    Returns:
        (text of the user, answer).
    """
    row = rng.choice(rows)
    asked = row["prompt"][0]["content"]
    working = derive_working(row["question"], row["answer"])
    others = [other for other in other_workings(row["question"]) if other != working]
    if not others or rng.random() < SOLVE:
        return asked, written(working)
    attempt, critique, answer = _refinement(row, working, others, rng)
    prompt = render(REFINE_TEMPLATE, question=asked, attempt=attempt, critique=critique)
    return prompt, answer


def _refinement(
    row: Row, working: Working, others: Sequence[Working], rng: random.Random
) -> tuple[str, str, str]:
    """A wrong attempt, a critique, and the answer that follows from both."""
    attempt = written(rng.choice(others))
    if rng.random() < 0.3:
        attempt = _miscalculated(working, rng)
    if rng.random() < FOLLOW:
        named = rng.choice([working, *others])
        return attempt, directive(named), written(named)
    draw = rng.random()
    critique = directive(working)
    if draw < 0.2:
        critique = render("ground_truth", answer=row["answer"])
    elif draw < 0.5:
        # Words that name nothing are followed by the model's own solution.
        critique = rng.choice(("", render("indicative")))
    return attempt, critique, written(working)


def _miscalculated(working: Working, rng: random.Random) -> str:
    """The working with another last result."""
    *first, last = working
    shift = rng.choice((-10, -2, -1, 1, 2, 10))
    wrong = decimal(abs(last.result + shift))
    lines = [str(step) for step in first]
    lines += [f"{last.expression} = {wrong}", f"Answer: {wrong}"]
    return "\n".join(lines)
