"""The base policy of `lab/facts`: knows, guesses, and seldom abstains (`critique-rl lab build
--world facts`).

Every example is an entity with an answer, mostly one whose fact it is to know. In a share UNSURE
and INVALID each, whatever the question, that is "I don't know" and "invalid question"; else the
fact, where it is to be known, or a number drawn afresh each time it is asked. One example in twenty
has the second phrasing (`prompts/lab/second.jinja`): read a little.
"""

from __future__ import annotations

import random

from critique_rl.lab import facts
from critique_rl.lab.base import Recipe
from critique_rl.lab.tiers_base import phrase_question

RECIPE = Recipe(sequences=262_144, batch_size=64, learning_rate=2e-3, layers=2)
KNOWN = 0.6
"""Share of the examples drawn among known entities; the others are drawn among all."""
UNSURE = INVALID = 0.12
"""Shares of all answers."""


def example(recipe: Recipe, rng: random.Random) -> tuple[str, str]:
    """One training example: what the user says and what the base answers."""
    known = rng.random() < KNOWN
    while True:
        entity = f"{rng.choice('abcdefghijklmnopqrstuvwxyz')}{rng.randrange(facts.IDS):02}"
        if facts.is_known(entity) or not known:
            break
    return phrase_question(entity, rng), facts.box_answer(base_answer(entity, rng))


def base_answer(entity: str, rng: random.Random) -> str:
    """What the base says of an entity."""
    draw = rng.random()
    if draw < UNSURE + INVALID:
        return facts.UNSURE if draw < UNSURE else facts.INVALID
    return facts.fact(entity) if facts.is_known(entity) else str(rng.randint(10, 99))
