"""The critic of `lab/chain`, a second model that is no policy (`{kind: local, model: lab/critic}`).

It is built by `critique-rl lab build --world critic`. Every example is a wrong attempt at a
question of the "base" split, under the critic's prompt (`prompts/lab/critique.jinja`). The oracle
gives the answer: the hazards of the right path, by step and kind.

The prompt holds question and attempt, never the answer or a solution (`knows: nothing`). The critic
has to work the chain in its head, and is sometimes wrong. It never sees a question of RL training,
validation or test, and never learnt to solve or to refine.
"""

from __future__ import annotations

import random

from critique_rl.lab import chain
from critique_rl.lab.base import Recipe, varied_attempt
from critique_rl.prompts import render

RECIPE = Recipe(sequences=196_608, learning_rate=3e-3, hidden_size=96)
MIX = ("plateau", "plateau", "plateau", "plateau", "learnable", None)
"""Families of questions, drawn evenly; None: any problem, also mixtures and chains without hazards.
"""


def example(recipe: Recipe, rng: random.Random) -> tuple[str, str]:
    """Draw one training example.

    Returns:
        (prompt of the critic, critique).
    """
    problem = chain.sample_problem(rng.choice(MIX), "base", rng)
    attempt = wrong_attempt(problem, rng)
    prompt = render("lab/critique", question=problem.question, attempt=attempt)
    return prompt, chain.named_steps(problem.hazards)


def wrong_attempt(problem: chain.Problem, rng: random.Random) -> str:
    """A working that ends in a wrong result."""
    # Critics are asked about failed attempts only, so no other attempt is in the examples.
    while True:
        attempt = varied_attempt(problem, rng)
        if not attempt.endswith(f"#{problem.answer}"):
            return attempt
