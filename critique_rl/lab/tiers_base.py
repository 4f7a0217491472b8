"""The base of `lab/tiers`: solves by guessing.

It is built by `critique-rl lab build --world tiers`. Every example is a question of the "base"
split, worked rightly. Its hidden magnitudes are drawn from their distribution, not from the
question's hash: the base never reads which guess is right.

The confidence is independent of the question: 90 half of the time, else any of the eleven levels.
All levels are sampled then, and none means anything. One example in twenty has the second phrasing
(`prompts/lab/second.jinja`), which the base therefore reads a little.

Two more bases answer in two styles, with the steps or without them (`tiers.format_direct`): a small
policy is seldom right without. Random rewards are tried on them, which may bring up a habit.

    critique-rl lab build --world tiers --direct-share 0.35 --sequences 131072 --out tiers-worked
    critique-rl lab build --world tiers --direct-share 0.65 --sequences 131072 --out tiers-direct
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
    """The question, in a share SECOND of all calls in its second phrasing."""
    if rng.random() < SECOND:
        return render("lab/second", question=question)
    return question


def example(recipe: Recipe, rng: random.Random) -> tuple[str, str]:
    """Draw one training example.

    Returns:
        (question, answer of the base).
    """
    problem = tiers.sample_problem(rng.choice(tiers.FAMILIES), "base", rng)
    sizes = []
    for _, size in problem.operands:
        sizes.append(size or tiers.hidden_magnitude(rng.random()))
    percent = 90 if rng.random() < 0.5 else 10 * rng.randrange(11)
    question = phrase_question(problem.question, rng)
    # No draw at 0: the committed base of one style was built without this draw.
    if recipe.direct_share > 0 and rng.random() < recipe.direct_share:
        return question, tiers.format_direct(problem, sizes, percent)
    return question, tiers.format_working(problem, sizes, percent)
