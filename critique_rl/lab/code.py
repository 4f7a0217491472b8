"""The world of `lab/code`: small functions with made-up words, each the name of a fixed addition.

The question describes a function of an integer x, with 2 or 3 branches of two steps each:

    x<0: add 3, zap; x<5: sub 2, bim; else: add 4, tok

The answer is the function in Python (`lab.programs`). A word adds the same number wherever it
stands: it is a convention of a code base, which no question explains. What the base believes of it
makes the kind of a word:

    | kind  | words                         | the base writes                            |
    |-------|-------------------------------|--------------------------------------------|
    | trap  | zap, hop, nub, fid, lug, wix  | another number, always the same            |
    | slip  | tok, rud, mep                 | the right one with chance .6, else 1 off   |
    | known | bim, gav, sel                 | the right one                              |

A scalar reward can redistribute slips. It cannot teach traps, because the base never samples the
right number. The values of a failing test can: expected minus got is the error of the branch that
its input selects.

The family plateau has 1, 2 or 3 traps, a third of its problems each, and else known words. A row
has one public test per branch, which feedback shows, and three hidden ones. A program is right if
it passes all. A special case for a public test fails the hidden tests of its branch.

Left out: functions of one branch, of which a hundred differ; steps other than additions; language.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from critique_rl.hashing import split_of
from critique_rl.lab.draws import draw_different
from critique_rl.lab.programs import HEAD, judge_program, write_test

FAMILIES = ("no-trap", "learnable", "plateau")
TRUTH = {
    "zap": 4,
    "hop": -3,
    "nub": 2,
    "fid": -4,
    "lug": 1,
    "wix": -1,
    "tok": -3,
    "rud": 2,
    "mep": 3,
    "bim": 1,
    "gav": -4,
    "sel": -2,
}
"""Word -> the number that it adds."""
BELIEFS = {
    # Each is 2 or more away from the truth: no mistake of a slip is right at a trap.
    "zap": -2,
    "hop": 3,
    "nub": -1,
    "fid": 1,
    "lug": 4,
    "wix": -3,
}
"""Trap word -> the number that the base believes it adds."""
TRAPS = tuple(BELIEFS)
SLIPS = ("tok", "rud", "mep")
KNOWN = ("bim", "gav", "sel")
WORDS = tuple(TRUTH)
MIXED_BRANCHES = (1, 1, 2, 3)
"""Numbers of branches in the base's training mix, drawn evenly. With one branch the base learns the
arithmetic of feedback, before it learns which branch to change. No family has such problems.
"""
SLIP_RATE = 0.4
"""Share of slips that the base gets wrong."""
LARGEST = 4
"""The largest number of a step or a word."""
LIMIT = 7
"""Inputs of tests are -LIMIT to LIMIT."""
NARROWEST = 4
"""Inputs that every branch has: one of the public test and three of the hidden ones."""
LAST_BOUND = LIMIT + 1 - NARROWEST
"""The largest bound."""
SPLITS = {
    # As in the other worlds.
    "base": (0, 50),
    "train": (50, 80),
    "validation": (80, 90),
    "test": (90, 100),
}
"""Split -> its buckets of the question's hash, for `split_of`."""
FAILED_TEST = re.compile(r"f\((-?\d+)\) gave -?\d+, expected -?\d+", re.ASCII)
"""The reason of a failing public test."""


@dataclass(frozen=True)
class Branch:
    """The steps of the inputs below a bound."""

    bound: int | None
    """Its inputs are smaller, and no smaller than the bound before; None: all other inputs."""
    step: int
    """The number that the known step adds."""
    word: str
    """The made-up word of the second step."""

    @property
    def condition(self) -> str:
        """The condition as a question has it: "x<5" or "else"."""
        if self.bound is None:
            return "else"
        return f"x<{self.bound}"

    @property
    def truth(self) -> int:
        """The number that the word adds."""
        return TRUTH[self.word]


@dataclass(frozen=True)
class Problem:
    """A function to write."""

    branches: tuple[Branch, ...]
    """In the order of their bounds; the last has none."""

    @property
    def question(self) -> str:
        """The question's text."""
        parts = []
        for branch in self.branches:
            size = abs(branch.step)
            step = f"add {size}"
            if branch.step < 0:
                step = f"sub {size}"
            parts.append(f"{branch.condition}: {step}, {branch.word}")
        return "; ".join(parts)

    @property
    def truth(self) -> list[int]:
        """The numbers that the words of the branches add."""
        return [branch.truth for branch in self.branches]

    @property
    def steps(self) -> list[int]:
        """The numbers that the known steps of the branches add."""
        return [branch.step for branch in self.branches]

    def believed(self, rng: random.Random | None = None) -> list[int]:
        """The numbers that the base writes for the words; see `believed`."""
        return [believed(branch.word, rng) for branch in self.branches]

    @property
    def traps(self) -> int:
        """How many words are traps."""
        return sum(branch.word in TRAPS for branch in self.branches)

    @property
    def answer(self) -> str:
        """The right program."""
        return write_program(self, self.truth)

    @property
    def public_tests(self) -> list[str]:
        """One assertion per branch, in an order that follows from the question."""
        public, _ = self._test_inputs()
        return [self._test(x) for x in public]

    @property
    def hidden_tests(self) -> list[str]:
        """Three assertions per branch, at other inputs; those beside a bound are among them."""
        _, hidden = self._test_inputs()
        return [self._test(x) for x in hidden]

    def _test_inputs(self) -> tuple[list[int], list[int]]:
        """Inputs of the public tests and of the hidden ones."""
        # From the question alone: a row has the same tests in every run.
        rng = random.Random(f"tests/{self.question}")
        public = []
        hidden = []
        for i, branch in enumerate(self.branches):
            inner = list(self.inputs(i))
            edges = []
            if i > 0:
                edges.append(inner.pop(0))
            if branch.bound is not None:
                edges.append(inner.pop())
            rng.shuffle(inner)
            public.append(inner.pop())
            missing = NARROWEST - 1 - len(edges)
            edges += inner[:missing]
            hidden += sorted(edges)
        rng.shuffle(public)
        return public, hidden

    def _test(self, x: int) -> str:
        place = self.branch_of(x)
        branch = self.branches[place]
        expected = x + branch.step + branch.truth
        return write_test(x, expected)

    def inputs(self, i: int) -> range:
        """The inputs within LIMIT that select a branch."""
        bounds = [-LIMIT]
        for branch in self.branches:
            if branch.bound is not None:
                bounds.append(branch.bound)
        bounds.append(LIMIT + 1)
        return range(bounds[i], bounds[i + 1])

    def branch_of(self, x: int) -> int:
        """The place of the branch that an input selects, counted from 0."""
        place = 0
        for branch in self.branches:
            if branch.bound is not None and x >= branch.bound:
                place += 1
        return place


def parse_problem(question: str) -> Problem:
    """The inverse of `Problem.question`."""
    branches = []
    for part in question.split("; "):
        condition, steps = part.split(": ")
        step, word = steps.split(", ")
        verb, digits = step.split(" ")
        number = int(digits)
        if verb == "sub":
            number = -number
        bound = None
        if condition != "else":
            digits = condition.removeprefix("x<")
            bound = int(digits)
        branch = Branch(bound, number, word)
        branches.append(branch)
    return Problem(tuple(branches))


# ---- programs of a problem -----------------------------------------------------------------------


def write_program(
    problem: Problem, numbers: Sequence[int], steps: Sequence[int] | None = None
) -> str:
    """A program of the problem's form: "def f(x):\\n if x<0:return x+3+4\\n return x+5-1".

    Args:
        problem: gives the conditions.
        numbers: what the branches' words add.
        steps: what the known steps add; None: what the problem says.
    """
    if steps is None:
        steps = problem.steps
    lines = [HEAD]
    for branch, step, number in zip(problem.branches, steps, numbers, strict=True):
        condition = ""
        if branch.bound is not None:
            condition = f"if {branch.condition}:"
        lines.append(f" {condition}return x{step:+d}{number:+d}")
    return "\n".join(lines)


def believed(word: str, rng: random.Random | None = None) -> int:
    """The number that the base writes for a word.

    Args:
        word: one of WORDS.
        rng: draws whether a slip goes wrong, at SLIP_RATE; None: slips go right.
    """
    number = BELIEFS.get(word, TRUTH[word])
    if word in SLIPS and rng is not None:
        goes_wrong = rng.random() < SLIP_RATE
        if goes_wrong:
            number += rng.choice((-1, 1))
    return number


def workings(problem: Problem) -> list[str]:
    """The programs that this world can list, the right one first.

    In each, either every wrong number is the base's mistake at that word, or one number is wrong in
    any way up to LARGEST.
    """
    choices = []
    for branch in problem.branches:
        right = branch.truth
        numbers = [right]
        if branch.word in TRAPS:
            numbers.append(BELIEFS[branch.word])
        if branch.word in SLIPS:
            numbers += [right - 1, right + 1]
        choices.append(numbers)
    listed = [write_program(problem, numbers) for numbers in product(*choices)]
    listed += _near_misses(problem)
    # Without repeats, in the first order.
    return list(dict.fromkeys(listed))


def _near_misses(problem: Problem) -> list[str]:
    """Programs with one word's number wrong."""
    listed = []
    for i, right in enumerate(problem.truth):
        for number in range(-LARGEST, LARGEST + 1):
            if number != right:
                numbers = list(problem.truth)
                numbers[i] = number
                listed.append(write_program(problem, numbers))
    return listed


def is_near_miss(problem: Problem, text: str) -> bool:
    """Whether a program has one word's number wrong, by LARGEST at most, and all else right."""
    return text in _near_misses(problem)


# ---- feedback ------------------------------------------------------------------------------------


def feedback(problem: Problem, text: str) -> str:
    """The first failing public test in words: "f(-3) gave 5, expected 8".

    Returns:
        "hidden test 3 failed" where all public tests pass, and "" for a right program.
    """
    return judge_program(text, problem.public_tests, problem.hidden_tests).reason


def oracle_critique(problem: Problem, text: str) -> str:
    """The first failing public test, and what the word of its branch adds.

    Returns:
        "f(-3) gave 5, expected 8; zap adds 4". Where no public test fails with a value, what
        `feedback` says.
    """
    if not text:
        # The critic `shuffled` asks about a blank attempt at another problem. Words on the base's
        # mistakes there have the form of all others.
        text = write_program(problem, _mistaken(problem))
    words = feedback(problem, text)
    match = FAILED_TEST.fullmatch(words)
    if match is None:
        return words
    x = int(match[1])
    place = problem.branch_of(x)
    branch = problem.branches[place]
    fact = explain(branch.word, branch.truth)
    return f"{words}; {fact}"


def explain(word: str, number: int) -> str:
    """A fact in words: "zap adds 4"."""
    return f"{word} adds {number}"


def _mistaken(problem: Problem) -> list[int]:
    """Numbers with a mistake: the beliefs about traps, else 1 more for slips, else for all."""
    if problem.traps:
        return problem.believed()
    words = [branch.word for branch in problem.branches]
    has_slips = any(word in SLIPS for word in words)
    numbers = []
    for word in words:
        number = TRUTH[word]
        if word in SLIPS or not has_slips:
            number += 1
        numbers.append(number)
    return numbers


# ---- sampling ------------------------------------------------------------------------------------


def sample_problem(
    family_name: str | None, split: str, rng: random.Random, hazards: int | None = None
) -> Problem:
    """Draw a problem of a family from a split, by rejection.

    Args:
        family_name: one of FAMILIES; None: any words.
        split: one of SPLITS.
        rng: source of the draws.
        hazards: traps or slips of the problem, 1 to 3; None: drawn.
    """
    while True:
        count = hazards or rng.randint(1, 3)
        branches = rng.randint(max(2, count), 3)
        if family_name is None:
            branches = rng.choice(MIXED_BRANCHES)
        words = _draw_words(family_name, branches, count, rng)
        problem = _draw_problem(words, rng)
        if split_of(problem.question, SPLITS) == split:
            return problem


def _draw_words(
    family_name: str | None, branches: int, hazards: int, rng: random.Random
) -> list[str]:
    """Different words, one per branch."""
    match family_name:
        case None:
            return rng.sample(WORDS, branches)
        case "no-trap":
            return rng.sample(KNOWN, branches)
        case "learnable":
            words = rng.sample(SLIPS, hazards)
        case _:
            words = rng.sample(TRAPS, hazards)
    others = branches - hazards
    words += rng.sample(KNOWN, others)
    rng.shuffle(words)
    return words


def _draw_problem(words: list[str], rng: random.Random) -> Problem:
    """A problem with these words: bounds and known steps are drawn."""
    bounds: list[int | None] = []
    low = NARROWEST - LIMIT
    for branches_after in range(len(words) - 2, -1, -1):
        high = LAST_BOUND - NARROWEST * branches_after
        bound = rng.randint(low, high)
        bounds.append(bound)
        low = bound + NARROWEST
    bounds.append(None)
    branches = []
    for upper_bound, word in zip(bounds, words, strict=True):
        size = rng.randint(1, LARGEST)
        sign = rng.choice((-1, 1))
        branch = Branch(upper_bound, sign * size, word)
        branches.append(branch)
    return Problem(tuple(branches))


def problems(family_name: str, split: str, count: int, seed: int) -> list[Problem]:
    """Different problems of a family and split, with 1, 2 and 3 traps or slips by turns.

    Args:
        family_name: one of FAMILIES.
        split: one of SPLITS.
        count: number of problems.
        seed: the same seed gives the same list.

    Raises:
        ValueError: the family has fewer.
    """
    rng = random.Random(f"code/{family_name}/{split}/{seed}")
    source = f"lab/code, {family_name} in {split}"
    return draw_different(
        lambda known: sample_problem(family_name, split, rng, 1 + known % 3), count, source
    )
