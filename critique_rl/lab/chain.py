"""The world of `lab/chain`: chains of additions and subtractions, worked line by line, with traps.

A *trap* is a step that crosses 0 or 10. The base answers it with a fixed misconception, every time;
a *slip* is a step with operand 5 that crosses nothing, which the base gets right most of the time;
every other step it knows. That is the whole contrast: what is plausible to the base (slips) a
scalar reward can redistribute, what it never samples (traps) it cannot, and a critique that names
the steps and kinds can.

    | hazard | the step ...                   | the base writes | example       |
    |--------|--------------------------------|-----------------|---------------|
    | sign   | falls from >= 0 below 0        | -result         | 3-7 = 4       |
    | minus  | rises from < 0 above 0         | -result         | -4+9 = -5     |
    | carry  | rises from 0..9 to 10 or more  | result - 10     | 5+8 = 3       |
    | borrow | falls from 10 or more to 0..9  | result + 10     | 13-7 = 16     |
    | slip   | has operand 5, crosses nothing | result +- 1, sometimes | 2+5 = 6 |

The question is "3 A-7 B+9 C+8"; a working "A-7=-4", "B+9=5", "C+8=13", "#13"; a critique "A sign
lost; B minus kept; C carry lost". Numbers stay within -19..19 on every path a partly corrected
working can take. Left out: language. Questions, workings and critiques are the shortest text that a
one-million-parameter character model can learn in minutes.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from itertools import combinations

from critique_rl.hashing import split_of

TRAPS = ("sign", "minus", "carry", "borrow")
HAZARDS = (*TRAPS, "slip")
FAMILIES = ("no-trap", "learnable", "plateau")
WORDS = {
    "sign": "sign lost",
    "minus": "minus kept",
    "carry": "carry lost",
    "borrow": "borrow lost",
    "slip": "off by one",
}
REWORDED = {
    "sign": "dropped its minus",
    "minus": "is still negative",
    "carry": "ten too few",
    "borrow": "ten too many",
    "slip": "not exact",
}
"""The same in words that no base ever read, for a critic whose language the policy has to learn
first.
"""
LABELS = "ABCDE"
"""Steps carry a letter in question, working and critique, beside the operand: a number would be one
more digit among many.
"""
SLIP_RATE = 0.3
LIMIT = 19
SPLITS = {"base": (0, 50), "train": (50, 80), "validation": (80, 90), "test": (90, 100)}


@dataclass(frozen=True)
class Problem:
    """A chain: `start` followed by signed one-digit operands `deltas`."""

    start: int
    deltas: tuple[int, ...]

    @property
    def question(self) -> str:
        return str(self.start) + "".join(f" {LABELS[i]}{d:+d}" for i, d in enumerate(self.deltas))

    @property
    def values(self) -> tuple[int, ...]:
        """The right result after each step."""
        total, values = self.start, []
        for delta in self.deltas:
            total += delta
            values.append(total)
        return tuple(values)

    @property
    def answer(self) -> str:
        return str(self.values[-1])

    @property
    def hazards(self) -> dict[int, str]:
        """Hazards on the correct path: {step, counted from 1: kind}."""
        before = (self.start, *self.values)
        kinds = {i + 1: hazard(before[i], d) for i, d in enumerate(self.deltas)}
        return {i: kind for i, kind in kinds.items() if kind}

    @property
    def traps(self) -> dict[int, str]:
        return {i: kind for i, kind in self.hazards.items() if kind in TRAPS}


def parse_problem(question: str) -> Problem:
    """The inverse of `Problem.question`: "3 A-7 B+9" -> Problem(3, (-7, 9))."""
    terms = [int(t) for t in re.findall(r"[+-]?\d+", question)]
    return Problem(terms[0], tuple(terms[1:]))


def hazard(value: int, delta: int) -> str | None:
    """Kind of the hazard of the step `value + delta`, or None where the base is safe."""
    result = value + delta
    if value >= 0 > result:
        return "sign"
    if value < 0 < result:
        return "minus"
    if 0 <= value < 10 <= result:
        return "carry"
    if value >= 10 > result:
        return "borrow"
    return "slip" if abs(delta) == 5 else None


def misconception(value: int, delta: int) -> int:
    """What the base writes at a trap; the right result anywhere else."""
    result = value + delta
    shift = {"sign": -2 * result, "minus": -2 * result, "carry": -10, "borrow": 10}
    return result + shift.get(hazard(value, delta), 0)


def work(
    problem: Problem,
    named: dict[int, str],
    rng: random.Random | None = None,
    everything: bool = False,
) -> list[int]:
    """Work a chain as the base does, getting right exactly the steps `named` with their right kind.

    Returns the written result of each step. With `rng`, unnamed slips are missed at SLIP_RATE;
    without, never. `everything` works all rightly.
    """
    value, results = problem.start, []
    for i, delta in enumerate(problem.deltas, start=1):
        kind = hazard(value, delta)
        if everything or kind is None or named.get(i) == kind:
            result = value + delta
        elif kind == "slip":
            missed = rng is not None and rng.random() < SLIP_RATE
            result = value + delta + (rng.choice((-1, 1)) if missed else 0)
        else:
            result = misconception(value, delta)
        results.append(result)
        value = result
    return results


def format_working(problem: Problem, results: list[int]) -> str:
    """A working as text: "A-7=-4\\nB+9=5\\n#5"."""
    lines = [
        f"{LABELS[i]}{delta:+d}={result}"
        for i, (delta, result) in enumerate(zip(problem.deltas, results, strict=True))
    ]
    return "\n".join([*lines, f"#{results[-1]}"])


def faulty_spans(question: str, text: str) -> tuple[tuple[int, int], ...]:
    """Spans (start, end) of the results in a working that do not follow from the line before: "3
    A-7", "A-7=4\n#4" -> ((4, 5),).
    """
    problem, spans, at = parse_problem(question), [], 0
    value = problem.start
    for delta, line in zip(problem.deltas, text.split("\n"), strict=False):
        head, equals, result = line.partition("=")
        if not equals or re.fullmatch(r"-?\d{1,9}", result) is None:
            break
        if int(result) != value + delta:
            spans.append((at + len(head) + 1, at + len(line)))
        value, at = int(result), at + len(line) + 1
    return tuple(spans)


def named_steps(named: dict[int, str], words: dict[str, str] = WORDS) -> str:
    """A critique's text: "A sign lost; C carry lost"; "all right" where nothing is named."""
    return (
        "; ".join(f"{LABELS[i - 1]} {words[kind]}" for i, kind in sorted(named.items()))
        or "all right"
    )


def oracle_critique(question: str, words: dict[str, str] = WORDS) -> str:
    """Name every step with a hazard on the correct path and its kind, never a result."""
    return named_steps(parse_problem(question).hazards, words)


def family(problem: Problem) -> str | None:
    """The family a problem belongs to, or None for mixtures, which only the base's training mix
    holds.

    Plateau problems have three or more traps, and every working that misses at least one of them
    ends in a wrong result (so mistakes never cancel).
    """
    kinds, traps = list(problem.hazards.values()), problem.traps
    slips = len(kinds) - len(traps)
    if not kinds:
        return "no-trap"
    if not traps and slips >= 2:
        return "learnable"
    if len(traps) >= 3 and not slips and not _cancels(problem):
        return "plateau"
    return None


def _subsets(traps: dict[int, str], sizes: range) -> list[dict[int, str]]:
    return [dict(chosen) for n in sizes for chosen in combinations(traps.items(), n)]


def _cancels(problem: Problem) -> bool:
    """True where some partly corrected working still ends in the right result."""
    subsets = _subsets(problem.traps, range(len(problem.traps)))
    return any(work(problem, named)[-1] == problem.values[-1] for named in subsets)


def in_range(problem: Problem) -> bool:
    """True where every working, corrected at any subset of the traps, stays within -LIMIT..LIMIT."""
    subsets = _subsets(problem.traps, range(len(problem.traps) + 1))
    return all(abs(result) <= LIMIT for named in subsets for result in work(problem, named))


def sample_problem(wanted: str | None, split: str, rng: random.Random) -> Problem:
    """Draw a problem of one family (None: any problem, mixtures included) from one split, by
    rejection.
    """
    while True:
        steps = rng.randint(4, 5) if wanted == "plateau" else rng.randint(3, 5)
        digits = {
            "learnable": (1, 2, 3, 4, 5, 5, 5, 5, 6, 7),
            "plateau": (2, 3, 4, 6, 7, 8, 9),
            "no-trap": (1, 2, 3, 4, 6, 7),
        }
        operands = digits.get(wanted, (1, 2, 3, 4, 5, 6, 7, 8, 9))
        problem = Problem(
            rng.randint(-9, 19),
            tuple(rng.choice((-1, 1)) * rng.choice(operands) for _ in range(steps)),
        )
        # A hash is the cheapest of the three, and most draws fail it.
        if (
            split_of(problem.question, SPLITS) == split
            and (wanted is None or family(problem) == wanted)
            and in_range(problem)
        ):
            return problem


def problems(wanted: str, split: str, count: int, seed: int) -> list[Problem]:
    """`count` different problems of a family and split; the same seed gives the same list."""
    rng, found = random.Random(f"{wanted}/{split}/{seed}"), {}
    while len(found) < count:
        problem = sample_problem(wanted, split, rng)
        found[problem.question] = problem
    return list(found.values())
