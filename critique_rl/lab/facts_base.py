"""The base of `lab/facts`: knows, guesses, and seldom abstains.

It is built by `critique-rl lab build --world facts`. Every example is an entity with an answer,
mostly an entity whose fact the base is to know. Whatever the question, the answer is "I don't know"
in a share UNSURE and "invalid question" in a share INVALID. Else it is the fact, if the base is to
know it, or a number that is drawn anew each time. One example in twenty has the second phrasing
(`prompts/lab/second.jinja`), which the base therefore reads a little.
"""

from __future__ import annotations

import random

from critique_rl.lab import facts
from critique_rl.lab.base import Recipe
from critique_rl.lab.tiers_base import phrase_question

RECIPE = Recipe(sequences=262_144, batch_size=64, learning_rate=2e-3, layers=2)
KNOWN = 0.6
"""Share of the examples drawn among known entities; the others are drawn among all."""
UNSURE = 0.12
"""Share of "I don't know" among all answers."""
INVALID = 0.12
"""Share of "invalid question" among all answers."""


def example(recipe: Recipe, rng: random.Random) -> tuple[str, str]:
    """Draw one training example.

    Returns:
        (question, answer of the base).
    """
    known_only = rng.random() < KNOWN
    while True:
        region = rng.choice("abcdefghijklmnopqrstuvwxyz")
        number = rng.randrange(facts.IDS)
        entity = f"{region}{number:02}"
        if facts.is_known(entity) or not known_only:
            break
    question = phrase_question(entity, rng)
    return question, facts.box_answer(base_answer(entity, rng))


def base_answer(entity: str, rng: random.Random) -> str:
    """The base's answer about an entity, without its box."""
    draw = rng.random()
    if draw < UNSURE:
        return facts.UNSURE
    if draw < UNSURE + INVALID:
        return facts.INVALID
    if facts.is_known(entity):
        return facts.fact(entity)
    return str(rng.randint(10, 99))
