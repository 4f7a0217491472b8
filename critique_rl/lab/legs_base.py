"""The base policies of `lab/legs`: warm-started on easy questions only.

They are built by `critique-rl lab build --world legs`, for two skills: to solve, and to refine a
wrong attempt by a critique. With `critiques=False` every example is a solution: that base never saw
an attempt, a critique or a refinement. No hard question occurs, and no name of a kind of hard
questions: those tokens keep their first random embedding.
"""

from __future__ import annotations

import random

from critique_rl.lab import legs
from critique_rl.lab.base import Recipe, nonsense
from critique_rl.prompts import render

RECIPE = Recipe(sequences=65_536, locality=0.7)
SOLVE = 0.4
"""Share of the examples that are plain solutions."""


def example(recipe: Recipe, rng: random.Random) -> tuple[str, str]:
    """Draw one training example.

    Returns:
        (text of the user, answer of the base).
    """
    problem = legs.sample_problem("easy", "base", rng)
    if not recipe.critiques or rng.random() < SOLVE:
        solution = legs.work(problem, problem.legs)
        return problem.question, solution
    attempt, critique, answer = refinement(problem, recipe.locality, rng)
    prompt = render("lab/refine", question=problem.question, attempt=attempt, critique=critique)
    return prompt, answer


def refinement(problem: legs.Problem, locality: float, rng: random.Random) -> tuple[str, str, str]:
    """A wrong attempt, a critique, and the working that follows from both."""
    facts = legs.facts()
    numbers = sorted(set(facts.values()))
    believed = list(problem.legs)
    for i in range(len(believed)):
        if rng.random() < 0.6:
            believed[i] = rng.choice(numbers)
    attempt = legs.work(problem, believed)
    draw = rng.random()
    if draw < locality:
        # Invented numbers: the named lines take them, and the others stay as they were. The model
        # knows all animals that it meets here. True facts alone would teach it to overlook the
        # critique.
        named = _invent_facts(len(believed), numbers, rng)
        critique = legs.name_facts(problem, named)
        for i, number in named.items():
            believed[i] = number
        answer = legs.work(problem, believed)
        return attempt, critique, answer
    solution = legs.work(problem, problem.legs)
    above = draw - locality
    part = above / (1 - locality)
    if part < 0.6:
        if rng.random() < 0.3:
            attempt = miscalculate(attempt, rng)
        critique = legs.oracle_critique(problem.question, attempt)
    # Words that name nothing, or the bare answer, are followed by the model's solution.
    elif part < 0.85:
        critique = nonsense(rng)
    else:
        critique = render("lab/ground_truth", answer=problem.answer)
    return attempt, critique, solution


def _invent_facts(lines: int, numbers: list[int], rng: random.Random) -> dict[int, int]:
    """{line, counted from 0: number of legs}, for at least one line."""
    named = {}
    for i in range(lines):
        if rng.random() < 0.6:
            named[i] = rng.choice(numbers)
    if not named:
        named[0] = rng.choice(numbers)
    return named


def miscalculate(attempt: str, rng: random.Random) -> str:
    """The attempt with one line's product or sum moved.

    The rest stays as it is, so that one or two lines do not add up.
    """
    lines = attempt.split("\n")
    # The last line is the answer.
    workings = len(lines) - 1
    i = rng.randrange(workings)
    head, results = lines[i].split("=")
    product, total = results.split(" ")
    shift = rng.choice((-10, -1, 1, 2, 10))
    if rng.random() < 0.5:
        product = _shift_number(product, shift)
    else:
        total = _shift_number(total, shift)
    lines[i] = f"{head}={product} {total}"
    return "\n".join(lines)


def _shift_number(digits: str, shift: int) -> str:
    # Workings have no minus sign.
    shifted = int(digits) + shift
    return str(max(0, shifted))
