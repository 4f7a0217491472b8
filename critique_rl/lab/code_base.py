"""The base of `lab/code`: writes functions by its beliefs, and follows feedback locally.

It is built by `critique-rl lab build --world code`. An example is a function to write, or an
attempt with feedback to refine. All questions are of the "base" split.

Feedback is followed as it stands, and by no truth. The numbers that it calls for are drawn anew
each time, so the base never reads in it what a word adds:

- "f(-3) gave 5, expected 8": in the branch that the input selects, the word's number moves by
  expected minus got. All else stays as in the attempt, also where the values are of another
  program.
- "f(-3) gave 5, expected 8; zap adds 4": if that branch has the word, its number becomes 4; if not,
  nothing changes. "zap adds 4" alone holds in every branch.
- Words without information (a bare message, a test's name, nothing) leave the base to its beliefs.
- The right program is copied.
"""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from critique_rl.lab.base import Recipe, nonsense
from critique_rl.lab.code import (
    LARGEST,
    LIMIT,
    WORDS,
    Problem,
    explain,
    sample_problem,
    write_program,
)
from critique_rl.lab.programs import write_values
from critique_rl.prompts import render

RECIPE = Recipe(
    sequences=524_288, batch_size=64, locality=0.4, learning_rate=1.2e-3, hidden_size=96
)
SOLVE = 0.15
"""Share of the examples that are plain solutions."""
FAMILIES = (None, None, None, "plateau", "learnable", "no-trap")
"""Families of questions, drawn evenly; None: any words."""
CHANGED = (0.0, 0.5, 1.0, 1.0, 1.0)
"""Shares of an attempt's numbers that are no beliefs, drawn evenly. The base copies the numbers of
an attempt only if it cannot guess them.
"""
LARGEST_VALUE = 30
"""The largest value that is one token."""
PERIODS = (200, 61, 30, 17, 11, 7, 5, 3)
"""Periods of the waves that embeddings of numbers start from."""
AMPLITUDE = 0.06
"""Of those waves. The random start has a standard deviation of .02."""
TEXTS = (
    "def f(x):",
    "\n if ",
    ":return x",
    "\n return x",
    "else",
    "; ",
    " adds ",
    "\n> ",
    ") gave no answer: SyntaxError: invalid syntax (line ",
    ") gave ",
    ", expected ",
    "AssertionError",
    "hidden test ",
    "test ",
    " failed",
    "wrong",
    ", the answer is ",
    *WORDS,
)
"""Texts without numbers that are one token each."""

Pair = tuple[str, str]
"""(text of the user, answer of the base)."""


# ---- tokens --------------------------------------------------------------------------------------


def phrases() -> tuple[str, ...]:
    """Texts that are one token each, the longest first.

    A number that is one token can be added in one step. A bound, an input and a value are different
    tokens, so that a copied number has one place to come from.
    """
    texts = set(TEXTS)
    for number in range(1, LARGEST + 1):
        for sign, verb in (("+", "add"), ("-", "sub")):
            texts.add(f": {verb} {number}, ")
            texts.add(f":return x{sign}{number}")
            texts.add(f"\n return x{sign}{number}")
    for number in range(-LIMIT, LIMIT + 1):
        texts.add(f"x<{number}")
        texts.add(f"f({number}")
    largest = 3 * LARGEST
    for number in range(-largest, largest + 1):
        texts.add(f"{number:+d}")
    for number in range(-LARGEST_VALUE, LARGEST_VALUE + 1):
        texts.add(str(number))
    # Single digits are characters of the tokenizer already.
    several = [text for text in texts if len(text) > 1]
    several.sort()
    several.sort(key=len, reverse=True)
    return tuple(several)


def start_from_values(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Let the embeddings of numbers start from their values.

    Args:
        model: a fresh model, changed in place: waves of a token's number are added.
        tokenizer: its tokenizer. The number of a token is what it ends in: of "f(-3" it is -3.
    """
    # Detached: the values are changed, and no gradient is recorded.
    embeddings = model.model.embed_tokens.weight.detach()
    width = 2 * len(PERIODS)
    for token, place in tokenizer.get_vocab().items():
        match = re.search(r"[+-]?\d+$", token)
        if match is None:
            continue
        number = int(match[0])
        waves = []
        for period in PERIODS:
            angle = 2 * math.pi * number / period
            cosine = AMPLITUDE * math.cos(angle)
            sine = AMPLITUDE * math.sin(angle)
            waves += [cosine, sine]
        start = embeddings[place, :width]
        start += torch.tensor(waves)


# ---- examples ------------------------------------------------------------------------------------


def example(recipe: Recipe, rng: random.Random) -> Pair:
    """Draw one training example."""
    family = rng.choice(FAMILIES)
    problem = sample_problem(family, "base", rng)
    if rng.random() < SOLVE:
        return problem.question, solution(problem, rng)
    draw = rng.random()
    if draw >= recipe.locality:
        return _helpful(problem, rng)
    part = draw / recipe.locality
    attempt = draw_attempt(problem, rng)
    if part < 0.4:
        return _other_values(attempt, rng)
    if part < 0.6:
        return _other_fact(attempt, rng)
    return _no_information(attempt, rng)


def solution(problem: Problem, rng: random.Random) -> str:
    """A program by the base's beliefs."""
    numbers = problem.believed(rng)
    return write_program(problem, numbers)


@dataclass(frozen=True)
class Attempt:
    """A program to refine, whose numbers may be any."""

    problem: Problem
    """Gives the conditions."""
    numbers: list[int]
    """What the branches' words add."""
    steps: list[int]
    """What the known steps add."""

    def value(self, x: int) -> int:
        """What the program returns for an input."""
        i = self.problem.branch_of(x)
        step = self.steps[i]
        number = self.numbers[i]
        return x + step + number

    def prompt(self, critique: str) -> str:
        """The prompt to refine it by a critique."""
        text = write_program(self.problem, self.numbers, self.steps)
        question = self.problem.question
        return render("lab/refine", question=question, attempt=text, critique=critique)

    def repaired(self, i: int, number: int) -> str:
        """The program with another number for one branch's word."""
        numbers = list(self.numbers)
        numbers[i] = number
        return write_program(self.problem, numbers, self.steps)


def draw_attempt(problem: Problem, rng: random.Random) -> Attempt:
    """An attempt with numbers that the base believes, any numbers, or some of both."""
    numbers = problem.believed(rng)
    changed = rng.choice(CHANGED)
    for i in range(len(numbers)):
        if rng.random() < changed:
            numbers[i] = draw_number(rng)
    steps = problem.steps
    if rng.random() < 0.05:
        i = rng.randrange(len(steps))
        steps[i] = draw_number(rng)
    return Attempt(problem, numbers, steps)


def draw_number(rng: random.Random, but: int = 0) -> int:
    """A number from -LARGEST to LARGEST other than 0 and `but`."""
    while True:
        number = rng.randint(-LARGEST, LARGEST)
        if number not in (0, but):
            return number


def draw_input(rng: random.Random) -> int:
    """An input of a test."""
    return rng.randint(-LIMIT, LIMIT)


# ---- kinds of feedback ---------------------------------------------------------------------------


def _helpful(problem: Problem, rng: random.Random) -> Pair:
    """True feedback, if the word of a branch added a number that is drawn."""
    attempt = draw_attempt(problem, rng)
    x = draw_input(rng)
    i = problem.branch_of(x)
    written = attempt.numbers[i]
    number = draw_number(rng, but=written)
    value = attempt.value(x)
    expected = value + number - written
    words = write_values(x, value, expected)
    word = problem.branches[i].word
    fact = explain(word, number)
    repaired = attempt.repaired(i, number)
    draw = rng.random()
    if draw < 0.7:
        critique = words
    elif draw < 0.82:
        critique = f"{words}; {fact}"
    elif draw < 0.88:
        critique = fact
    elif draw < 0.93:
        critique = render("lab/ground_truth", answer=repaired)
    else:
        return _without_attempt(problem, x, rng)
    return attempt.prompt(critique), repaired


def _without_attempt(problem: Problem, x: int, rng: random.Random) -> Pair:
    """Feedback on the base's mistake, as a teacher of self-distillation reads it."""
    numbers = problem.believed(rng)
    steps = problem.steps
    attempt = Attempt(problem, numbers, steps)
    i = problem.branch_of(x)
    written = numbers[i]
    number = draw_number(rng, but=written)
    value = attempt.value(x)
    expected = value + number - written
    critique = write_values(x, value, expected)
    if rng.random() < 0.5:
        word = problem.branches[i].word
        fact = explain(word, number)
        critique = f"{critique}; {fact}"
    question = problem.question
    prompt = render("lab/teacher", question=question, critique=critique, solution="")
    return prompt, attempt.repaired(i, number)


def _other_values(attempt: Attempt, rng: random.Random) -> Pair:
    """Values that follow from no attempt."""
    x = draw_input(rng)
    i = attempt.problem.branch_of(x)
    number = attempt.numbers[i]
    other = draw_number(rng)
    change = other - number
    if rng.random() < 0.5:
        largest = 2 * LARGEST
        change = rng.randint(-largest, largest)
    critique = _values_apart(x, change, rng)
    new = number + change
    repaired = attempt.repaired(i, new)
    return attempt.prompt(critique), repaired


def _values_apart(x: int, change: int, rng: random.Random) -> str:
    """Values that differ by `change`."""
    value = rng.randint(-15, 15)
    return write_values(x, value, value + change)


def _other_fact(attempt: Attempt, rng: random.Random) -> Pair:
    """A fact on a word that the branch, or the program, mostly does not have."""
    branches = attempt.problem.branches
    x = draw_input(rng)
    i = attempt.problem.branch_of(x)
    number = draw_number(rng)
    word = rng.choice(WORDS)
    if rng.random() < 0.3:
        word = branches[i].word
    change = draw_number(rng)
    words = _values_apart(x, change, rng)
    fact = explain(word, number)
    critique = f"{words}; {fact}"
    places = [i]
    if rng.random() < 0.3:
        critique = fact
        places = list(range(len(branches)))
    written = attempt.numbers[i]
    answer = attempt.repaired(i, written)
    for place in places:
        if branches[place].word == word:
            answer = attempt.repaired(place, number)
    return attempt.prompt(critique), answer


def _no_information(attempt: Attempt, rng: random.Random) -> Pair:
    """Words that say nothing of what is wrong."""
    x = draw_input(rng)
    number = rng.randint(1, 9)
    line = rng.randint(1, 4)
    texts = (
        "AssertionError",
        "wrong",
        "",
        "",
        f"hidden test {number} failed",
        f"test {number} failed",
        f"f({x}) gave no answer: SyntaxError: invalid syntax (line {line})",
        nonsense(rng),
    )
    critique = rng.choice(texts)
    prompt = attempt.prompt(critique)
    return prompt, solution(attempt.problem, rng)
