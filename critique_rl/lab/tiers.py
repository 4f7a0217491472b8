"""The world of `lab/tiers`: chains of additions in which some operands are hidden, answered with a
stated confidence.

The question "3 A+4 B+? C-2 D-?" hides the magnitudes of B and D: 1, 2 or 3 with probability .6, .3,
.1, by a hash of the question. A working fills in a guess for each: "A+4=7", "B+1=8", "C-2=6",
"D-1=5", then "#5", then how sure it is in percent: "@70". The family `tier<t>` has t hidden
operands.

What is built in: the mechanism Yue et al. (arXiv 2504.13837) describe. Several ways to answer, one
of them right, and which one cannot be read from the question: no policy can do better than the
likeliest result, pass@1 can rise by sharpening alone, the base's pass@k is near 1 where k is large,
and what is rare can be lost. What is left out: anything a policy could come to know, traps
(`lab/chain` has them), critiques, and language.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from critique_rl.hashing import split_of, uniform

FAMILIES = ("tier0", "tier1", "tier2", "tier3")
LABELS = "ABCD"
CHANCES = (0.6, 0.3, 0.1)
"""Of a hidden magnitude of 1, 2, 3."""
LARGEST, LIMIT = 6, 19
"""The largest operand shown; results stay within 0..LIMIT whatever the hidden magnitudes are."""
SPLITS = {"base": (0, 50), "train": (50, 80), "validation": (80, 90), "test": (90, 100)}


@dataclass(frozen=True)
class Problem:
    """A chain: `start`, then four operands as (sign, magnitude), magnitude 0 where it is hidden."""

    start: int
    operands: tuple[tuple[int, int], ...]

    @property
    def question(self) -> str:
        return str(self.start) + "".join(
            f" {label}{'+' if sign > 0 else '-'}{size or '?'}"
            for label, (sign, size) in zip(LABELS, self.operands, strict=True)
        )

    @property
    def hidden(self) -> int:
        return sum(not size for _, size in self.operands)

    @property
    def truth(self) -> tuple[int, ...]:
        """The four magnitudes, the hidden ones by the hash of the question."""
        return tuple(
            size or hidden_magnitude(uniform(f"{self.question}/{label}"))
            for label, (_, size) in zip(LABELS, self.operands, strict=True)
        )

    @property
    def answer(self) -> str:
        return str(self.results(self.truth)[-1])

    def results(self, sizes: Sequence[int]) -> list[int]:
        """The result after each step with these four magnitudes."""
        total, results = self.start, []
        for (sign, _), size in zip(self.operands, sizes, strict=True):
            total += sign * size
            results.append(total)
        return results


def hidden_magnitude(chance: float) -> int:
    """A hidden magnitude, from a number in [0, 1)."""
    return 1 if chance < CHANCES[0] else 2 if chance < CHANCES[0] + CHANCES[1] else 3


def parse_problem(question: str) -> Problem:
    """The inverse of `Problem.question`."""
    start, *terms = question.split(" ")
    return Problem(
        int(start),
        tuple(
            (1 if term[1] == "+" else -1, 0 if term[2] == "?" else int(term[2])) for term in terms
        ),
    )


def format_working(problem: Problem, sizes: Sequence[int], percent: int) -> str:
    """A working as text: "A+4=7\\n...\\n#5\\n@70"."""
    results = problem.results(sizes)
    steps = zip(LABELS, problem.operands, sizes, results, strict=True)
    lines = [
        f"{label}{'+' if sign > 0 else '-'}{size}={result}"
        for label, (sign, _), size, result in steps
    ]
    return "\n".join([*lines, f"#{results[-1]}", f"@{percent}"])


def in_range(problem: Problem) -> bool:
    """True where no magnitudes lead out of 0..LIMIT."""
    low = high = problem.start
    for sign, size in problem.operands:
        ends = (sign * (size or 1), sign * (size or 3))
        low, high = low + min(ends), high + max(ends)
        if low < 0 or high > LIMIT:
            return False
    return True


def sample_problem(wanted: str, split: str, rng: random.Random) -> Problem:
    """Draw a problem of one family from one split, by rejection."""
    while True:
        hidden = rng.sample(range(len(LABELS)), FAMILIES.index(wanted))
        operands = tuple(
            (rng.choice((-1, 1)), 0 if i in hidden else rng.randint(1, LARGEST))
            for i in range(len(LABELS))
        )
        problem = Problem(rng.randint(0, LIMIT), operands)
        if in_range(problem) and split_of(problem.question, SPLITS) == split:
            return problem


def problems(wanted: str, split: str, count: int, seed: int) -> list[Problem]:
    """`count` different problems of a family and split, the same for the same seed; where there are
    fewer, they come round again in training.

    ValueError where there are not as many held-out ones.
    """
    rng, found, misses = random.Random(f"{wanted}/{split}/{seed}"), {}, 0
    while len(found) < count:
        problem = sample_problem(wanted, split, rng)
        misses = misses + 1 if problem.question in found else 0
        found[problem.question] = problem
        if misses > 2000 and split == "train":
            break
        if misses > 2000:
            raise ValueError(
                f"lab/tiers: got {count} problems of {wanted} in {split}, expected at most about {len(found)}: ask for fewer"
            )
    different = list(found.values())
    return [different[i % len(different)] for i in range(count)]
