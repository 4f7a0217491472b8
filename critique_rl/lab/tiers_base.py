"""The base policy of `lab/tiers`: solves by guessing (`critique-rl lab build --world tiers`).

Every example is a question of the "base" split, worked rightly with hidden magnitudes drawn from
their distribution, not from the question's hash: the base never reads which guess is right. The
confidence knows nothing of the question: 90 half of the time, else any of the eleven, so that all
levels are sampled and none means anything. One example in twenty has the second phrasing
(`prompts/lab/second.jinja`): read a little.
"""

from __future__ import annotations

import random

from critique_rl.lab import tiers
from critique_rl.lab.base import Recipe
from critique_rl.prompts import render

RECIPE = Recipe(sequences=65_536, learning_rate=3e-3, hidden_size=64, layers=3)
SECOND = 0.05
"""Share of the examples under the second phrasing."""


def phrase_question(question: str, rng: random.Random) -> str:
    """The question, seldom in its second phrasing."""
    return render("lab/second", question=question) if rng.random() < SECOND else question


def example(recipe: Recipe, rng: random.Random) -> tuple[str, str]:
    """One training example: what the user says and what the base answers."""
    problem = tiers.sample_problem(rng.choice(tiers.FAMILIES), "base", rng)
    sizes = [size or tiers.hidden_magnitude(rng.random()) for _, size in problem.operands]
    percent = 90 if rng.random() < 0.5 else 10 * rng.randrange(11)
    return phrase_question(problem.question, rng), tiers.format_working(problem, sizes, percent)
