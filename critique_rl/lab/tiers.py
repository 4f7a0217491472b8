"""The world of `lab/tiers`: additions with hidden operands, answered with a stated confidence.

The question "3 A+4 B+? C-2 D-?" hides the magnitudes of B and D: 1, 2 or 3 with probability .6, .3,
.1, by a hash of the question. A working fills in a guess for each: "A+4=7", "B+1=8", "C-2=6",
"D-1=5", then "#5", then its confidence in percent: "@70". The family `tier<t>` has t hidden
operands. The verifier reads the last two lines alone, so an answer may also leave its steps out.

The world has the mechanism that Yue et al. (arXiv 2504.13837) describe. There are several ways to
answer, one of them right, and the question does not show which. No policy can do better than the
likeliest result, and pass@1 can rise by sharpening alone. The base's pass@k is near 1 at large k,
so rare right answers can be lost.

Left out: facts that a policy could come to know, traps (`lab/chain` has them), critiques, language.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

from critique_rl.hashing import split_of, uniform

FAMILIES = ("tier0", "tier1", "tier2", "tier3")
LABELS = "ABCD"
CHANCES = (0.6, 0.3, 0.1)
"""Chances of a hidden magnitude of 1, 2, 3."""
LARGEST = 6
"""The largest operand shown."""
LIMIT = 19
"""The largest result, whatever the hidden magnitudes are; the smallest is 0."""
CONFIDENCE_MARK = "@"
"""What follows it in an answer is the confidence."""
SPLITS = {"base": (0, 50), "train": (50, 80), "validation": (80, 90), "test": (90, 100)}
"""Split -> its buckets of the question's hash, for `split_of`."""


@dataclass(frozen=True)
class Problem:
    """A chain of four steps, some with a hidden operand."""

    start: int
    """The number before the first step."""
    operands: tuple[tuple[int, int], ...]
    """(sign, magnitude) per step; magnitude 0 is hidden."""

    @property
    def question(self) -> str:
        """The question's text."""
        text = str(self.start)
        for label, (sign, size) in zip(LABELS, self.operands, strict=True):
            character = _sign_character(sign)
            # Magnitude 0 is hidden.
            shown = size or "?"
            text += f" {label}{character}{shown}"
        return text

    @property
    def hidden(self) -> int:
        """Number of hidden operands."""
        sizes = [size for _, size in self.operands]
        return sizes.count(0)

    @property
    def truth(self) -> tuple[int, ...]:
        """The four magnitudes; the hidden ones follow from the hash of the question."""
        sizes = []
        for label, (_, size) in zip(LABELS, self.operands, strict=True):
            draw = uniform(f"{self.question}/{label}")
            sizes.append(size or hidden_magnitude(draw))
        return tuple(sizes)

    @property
    def answer(self) -> str:
        """The right answer, the last result."""
        results = self.results(self.truth)
        return str(results[-1])

    def results(self, sizes: Sequence[int]) -> list[int]:
        """The result after each step with these four magnitudes."""
        total = self.start
        results = []
        for (sign, _), size in zip(self.operands, sizes, strict=True):
            total += sign * size
            results.append(total)
        return results


def _sign_character(sign: int) -> str:
    if sign > 0:
        return "+"
    return "-"


def hidden_magnitude(draw: float) -> int:
    """A hidden magnitude from a number in [0, 1)."""
    one, two, _ = CHANCES
    if draw < one:
        return 1
    if draw < one + two:
        return 2
    return 3


def parse_problem(question: str) -> Problem:
    """The inverse of `Problem.question`."""
    start, *terms = question.split(" ")
    operands = []
    for term in terms:
        # A term is a label, a sign and one digit: "B+?".
        character = term[1]
        sign = 1 if character == "+" else -1
        shown = term[2]
        size = 0 if shown == "?" else int(shown)
        operands.append((sign, size))
    return Problem(int(start), tuple(operands))


def format_working(problem: Problem, sizes: Sequence[int], percent: int) -> str:
    """A working as text: "A+4=7\\n...\\n#5\\n@70"."""
    results = problem.results(sizes)
    steps = zip(LABELS, problem.operands, sizes, results, strict=True)
    lines = []
    for label, (sign, _), size, result in steps:
        character = _sign_character(sign)
        lines.append(f"{label}{character}{size}={result}")
    lines.append(f"#{results[-1]}")
    lines.append(f"@{percent}")
    return "\n".join(lines)


def format_direct(problem: Problem, sizes: Sequence[int], percent: int) -> str:
    """The same answer without its steps: "#5\\n@70"."""
    results = problem.results(sizes)
    return f"#{results[-1]}\n@{percent}"


def workings(problem: Problem) -> dict[str, int]:
    """All workings of a problem, one per guess of its hidden magnitudes, without a confidence.

    Returns:
        Working, up to and with `CONFIDENCE_MARK` -> how many of its guesses are wrong.
    """
    truth = problem.truth
    choices: list[tuple[int, ...]] = []
    for _, size in problem.operands:
        if size:
            choices.append((size,))
        else:
            choices.append((1, 2, 3))
    wrong_guesses = {}
    for sizes in itertools.product(*choices):
        text = format_working(problem, sizes, 0)
        working, mark, _ = text.partition(CONFIDENCE_MARK)
        wrong = 0
        for size, true_size in zip(sizes, truth, strict=True):
            wrong += size != true_size
        wrong_guesses[working + mark] = wrong
    return wrong_guesses


def true_working(problem: Problem) -> str:
    """The working whose guesses are all right, as `workings` lists it."""
    [working] = [text for text, wrong in workings(problem).items() if wrong == 0]
    return working


def is_near_miss(problem: Problem, working: str) -> bool:
    """Whether a working, as `workings` lists them, has one hidden magnitude wrong."""
    return workings(problem).get(working) == 1


def in_range(problem: Problem) -> bool:
    """True if no hidden magnitudes lead out of 0..LIMIT."""
    low = problem.start
    high = problem.start
    for sign, size in problem.operands:
        smallest = size or 1
        largest = size or 3
        ends = (sign * smallest, sign * largest)
        low += min(ends)
        high += max(ends)
        # The ends are checked after each step: every result is written down.
        if low < 0 or high > LIMIT:
            return False
    return True


def sample_problem(family_name: str, split: str, rng: random.Random) -> Problem:
    """Draw a problem of a family from a split, by rejection."""
    hidden_steps = FAMILIES.index(family_name)
    while True:
        hidden = rng.sample(range(len(LABELS)), hidden_steps)
        operands = []
        for i in range(len(LABELS)):
            sign = rng.choice((-1, 1))
            size = 0
            if i not in hidden:
                size = rng.randint(1, LARGEST)
            operands.append((sign, size))
        start = rng.randint(0, LIMIT)
        problem = Problem(start, tuple(operands))
        if in_range(problem):
            problem_split = split_of(problem.question, SPLITS)
            if problem_split == split:
                return problem


def problems(family_name: str, split: str, count: int, seed: int) -> list[Problem]:
    """`count` different problems of a family and split; the same seed gives the same list.

    Raises:
        ValueError: a held-out split has fewer. In training they come round again.
    """
    rng = random.Random(f"{family_name}/{split}/{seed}")
    by_question: dict[str, Problem] = {}
    repeats = 0
    while len(by_question) < count:
        problem = sample_problem(family_name, split, rng)
        if problem.question in by_question:
            repeats += 1
        else:
            repeats = 0
        by_question[problem.question] = problem
        # That many known problems in a row: the family has few others, or none.
        if repeats > 2000:
            break
    different = list(by_question.values())
    if len(different) < count and split != "train":
        raise ValueError(
            f"lab/tiers: got {count} problems of {family_name} in {split},"
            f" expected at most about {len(different)}: ask for fewer"
        )
    cycle = itertools.cycle(different)
    return list(itertools.islice(cycle, count))
