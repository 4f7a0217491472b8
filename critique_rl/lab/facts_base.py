"""The base policy of `lab/facts`: knows, guesses, and seldom abstains (`critique-rl lab build --world facts`).

Every example is one of all entities with an answer: in a share UNSURE and INVALID each, whatever the question, "I don't know" and "invalid question"; else the
fact, where it is to be known, or a number drawn afresh each time it is asked. One example in twenty has the second phrasing (`prompts/lab/second.jinja`).
"""

from __future__ import annotations

import random

from critique_rl.lab import facts
from critique_rl.lab.base import Recipe
from critique_rl.lab.tiers_base import phrased

RECIPE = Recipe(sequences=262_144, batch_size=64, learning_rate=3e-3, layers=2)
UNSURE = INVALID = 0.12
"""Shares of all answers."""


def example(recipe: Recipe, rng: random.Random) -> tuple[str, str]:
    """One training example: what the user says and what the base answers."""
    entity = f"{rng.choice('abcdefghijklmnopqrstuvwxyz')}{rng.randrange(facts.IDS):02}"
    return phrased(entity, rng), facts.written(said(entity, rng))


def said(entity: str, rng: random.Random) -> str:
    """What the base says of an entity."""
    draw = rng.random()
    if draw < UNSURE + INVALID:
        return facts.UNSURE if draw < UNSURE else facts.INVALID
    return facts.fact(entity) if facts.is_known(entity) else str(rng.randint(10, 99))
