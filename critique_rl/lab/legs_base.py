"""The base policies of `lab/legs`: warm-started on easy questions only (`critique-rl lab build
--world legs`).

Two skills: solve, and refine a wrong attempt by a critique. What a critique says of a kind decides
there, not what the model knows of it: in a share `locality` of the refinements the numbers said are
invented, named lines take them and the others stay as they were, because with true facts alone the
model, which knows all animals it meets here, would learn to overlook the critique. Words that name
nothing are followed by the model's own solution. With `critiques=False` every example is a
solution: that base never saw an attempt, a critique or a refinement. No hard question, and no name
of a kind of hard questions, occurs: those tokens keep their first random embedding.
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
    """One training example: what the user says and what the base answers."""
    problem = legs.sample_problem("easy", "base", rng)
    if not recipe.critiques or rng.random() < SOLVE:
        return problem.question, legs.work(problem, problem.legs)
    attempt, critique, answer = refinement(problem, recipe.locality, rng)
    return render(
        "lab/refine", question=problem.question, attempt=attempt, critique=critique
    ), answer


def refinement(problem: legs.Problem, locality: float, rng: random.Random) -> tuple[str, str, str]:
    """A wrong attempt, a critique, and the working that follows from both."""
    numbers = sorted(set(legs.facts().values()))
    believed = [rng.choice(numbers) if rng.random() < 0.6 else right for right in problem.legs]
    attempt, draw = legs.work(problem, believed), rng.random()
    if draw < locality:
        named = {i: rng.choice(numbers) for i in range(len(believed)) if rng.random() < 0.6} or {
            0: rng.choice(numbers)
        }
        return (
            attempt,
            legs.name_facts(problem, named),
            legs.work(problem, [named.get(i, number) for i, number in enumerate(believed)]),
        )
    solution, part = legs.work(problem, problem.legs), (draw - locality) / (1 - locality)
    if part < 0.6:
        attempt = miscalculate(attempt, rng) if rng.random() < 0.3 else attempt
        return attempt, legs.oracle_critique(problem.question, attempt), solution
    return (
        attempt,
        nonsense(rng) if part < 0.85 else render("lab/ground_truth", answer=problem.answer),
        solution,
    )


def miscalculate(attempt: str, rng: random.Random) -> str:
    """One line's product or sum moved; what follows stays, so that one or two lines do not add up."""
    lines = attempt.split("\n")
    i = rng.randrange(len(lines) - 1)
    head, equals, (product, total) = (
        *lines[i].partition("=")[:2],
        lines[i].partition("=")[2].split(" "),
    )
    shift = rng.choice((-10, -1, 1, 2, 10))
    moved = (
        (max(0, int(product) + shift), total)
        if rng.random() < 0.5
        else (product, max(0, int(total) + shift))
    )
    lines[i] = f"{head}{equals}{moved[0]} {moved[1]}"
    return "\n".join(lines)
