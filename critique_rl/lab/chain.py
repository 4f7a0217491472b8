"""The world of `lab/chain`: chains of additions and subtractions, worked line by line, with traps.

- A *trap* is a step that crosses 0 or 10. The base answers it with a fixed misconception, always.
- A *slip* is a step with operand 5 that crosses nothing. The base gets it right most of the time.
- Every other step the base knows.

A scalar reward can redistribute slips, because the base samples the right step too. It cannot teach
traps, because the base never samples the right step. A critique that names step and kind can.

    | hazard | the step ...                   | the base writes | example       |
    |--------|--------------------------------|-----------------|---------------|
    | sign   | falls from >= 0 below 0        | -result         | 3-7 = 4       |
    | minus  | rises from < 0 above 0         | -result         | -4+9 = -5     |
    | carry  | rises from 0..9 to 10 or more  | result - 10     | 5+8 = 3       |
    | borrow | falls from 10 or more to 0..9  | result + 10     | 13-7 = 16     |
    | slip   | has operand 5, crosses nothing | result +- 1, sometimes | 2+5 = 6 |

The question is "3 A-7 B+9 C+8"; a working "A-7=-4", "B+9=5", "C+8=13", "#13"; a critique "A sign
lost; B minus kept; C carry lost". Numbers stay within -19..19 on every path that a partly corrected
working can take.

Left out: language. Questions, workings and critiques are the shortest text that a character model
of a million parameters can learn in minutes.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from critique_rl.hashing import split_of
from critique_rl.lab.draws import draw_different
from critique_rl.types import Span

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
"""The hazards in words that no base ever read. The policy has to learn the language of such a
critic first.
"""
LABELS = "ABCDE"
"""Letters of steps, beside the operands in question, working and critique. Step numbers would be
more digits among many.
"""
OPERANDS: dict[str | None, tuple[int, ...]] = {
    "learnable": (1, 2, 3, 4, 5, 5, 5, 5, 6, 7),
    "plateau": (2, 3, 4, 6, 7, 8, 9),
    "no-trap": (1, 2, 3, 4, 6, 7),
    None: (1, 2, 3, 4, 5, 6, 7, 8, 9),
}
"""Operands per family, chosen so that a draw belongs to the family more often."""
SLIP_RATE = 0.3
"""Share of slips that the base gets wrong."""
LIMIT = 19
"""Largest absolute result on any path."""
SPLITS = {"base": (0, 50), "train": (50, 80), "validation": (80, 90), "test": (90, 100)}
"""Split -> its buckets of the question's hash, for `split_of`."""

Naming = dict[int, str]
"""{step, counted from 1: kind of hazard}, on a path or in a critique."""


@dataclass(frozen=True)
class Problem:
    """A chain of steps."""

    start: int
    """The number before the first step."""
    deltas: tuple[int, ...]
    """Signed one-digit operands, one per step."""

    @property
    def question(self) -> str:
        """The question's text: "3 A-7 B+9"."""
        text = str(self.start)
        for label, delta in zip(LABELS, self.deltas, strict=False):
            text += f" {label}{delta:+d}"
        return text

    @property
    def values(self) -> tuple[int, ...]:
        """The right result after each step."""
        total = self.start
        values = []
        for delta in self.deltas:
            total += delta
            values.append(total)
        return tuple(values)

    @property
    def answer(self) -> str:
        """The right answer, the last result."""
        return str(self.values[-1])

    @property
    def hazards(self) -> Naming:
        """Hazards on the right path."""
        before = (self.start, *self.values)
        hazards = {}
        for i, delta in enumerate(self.deltas):
            kind = hazard(before[i], delta)
            if kind is not None:
                hazards[i + 1] = kind
        return hazards

    @property
    def traps(self) -> Naming:
        """The hazards on the right path that are traps."""
        return {i: kind for i, kind in self.hazards.items() if kind in TRAPS}


def parse_problem(question: str) -> Problem:
    """The inverse of `Problem.question`: "3 A-7 B+9" -> Problem(3, (-7, 9))."""
    terms = [int(term) for term in re.findall(r"[+-]?\d{1,9}", question)]
    return Problem(terms[0], tuple(terms[1:]))


def hazard(value: int, delta: int) -> str | None:
    """Kind of the hazard of the step `value + delta`, or None if the base knows the step."""
    result = value + delta
    if value >= 0 > result:
        return "sign"
    if value < 0 < result:
        return "minus"
    if 0 <= value < 10 <= result:
        return "carry"
    if value >= 10 > result:
        return "borrow"
    if abs(delta) == 5:
        return "slip"
    return None


def misconception(value: int, delta: int) -> int:
    """The base's result of a step at a trap; the right result of any other step."""
    result = value + delta
    kind = hazard(value, delta)
    if kind in ("sign", "minus"):
        return -result
    if kind == "carry":
        return result - 10
    if kind == "borrow":
        return result + 10
    return result


def work(
    problem: Problem, named: Naming, rng: random.Random | None = None, everything: bool = False
) -> list[int]:
    """Work a chain as the base does after a critique.

    Args:
        problem: the chain.
        named: steps and kinds that the critique names. A step is corrected if its kind is named.
        rng: draws whether an unnamed slip goes wrong, at SLIP_RATE; None: slips go right.
        everything: True works all steps rightly.

    Returns:
        The written result of each step.
    """
    value = problem.start
    results = []
    for i, delta in enumerate(problem.deltas, start=1):
        # The hazard is that of the written path: after a wrong result other steps are traps.
        kind = hazard(value, delta)
        corrected = everything or named.get(i) == kind
        if corrected or kind is None:
            value += delta
        elif kind in TRAPS:
            value = misconception(value, delta)
        else:
            value += delta + _slip(rng)
        results.append(value)
    return results


def _slip(rng: random.Random | None) -> int:
    """The error of an unnamed slip: 0 or, at SLIP_RATE, -1 or 1."""
    if rng is not None and rng.random() < SLIP_RATE:
        return rng.choice((-1, 1))
    return 0


def format_working(problem: Problem, results: list[int]) -> str:
    """A working as text: "A-7=-4\\nB+9=5\\n#5"."""
    assert len(results) == len(problem.deltas), (len(results), len(problem.deltas))
    lines = []
    for label, delta, result in zip(LABELS, problem.deltas, results, strict=False):
        lines.append(f"{label}{delta:+d}={result}")
    lines.append(f"#{results[-1]}")
    return "\n".join(lines)


def format_tersely(problem: Problem) -> str:
    """The right working in another hand, without the operands: "A=-4\\nB=5\\n#5"."""
    lines = []
    for label, result in zip(LABELS, problem.values, strict=False):
        line = f"{label}={result}"
        lines.append(line)
    lines.append(f"#{problem.answer}")
    return "\n".join(lines)


def read_working(problem: Problem, text: str) -> list[int] | None:
    """The inverse of `format_working`; None for a text of any other form."""
    results = [int(digits) for digits in re.findall(r"=(-?\d{1,9})(?=\n)", text)]
    if len(results) != len(problem.deltas) or format_working(problem, results) != text:
        return None
    return results


def workings(problem: Problem) -> list[list[int]]:
    """The workings that this world can list, the right one first.

    In each, either every wrong step is the base's mistake at that place (the misconception at a
    trap, 1 off at a slip), or one step has a mistake of any kind and all others follow rightly.
    """
    paths: list[list[int]] = [[]]
    for i, delta in enumerate(problem.deltas):
        longer = []
        for path in paths:
            value = path[-1] if i else problem.start
            for result in (value + delta, *_own_mistakes(value, delta)):
                longer.append([*path, result])
        paths = longer
    listed = {tuple(path): path for path in paths}
    for path in _single_mistakes(problem):
        listed.setdefault(tuple(path), path)
    return list(listed.values())


def _own_mistakes(value: int, delta: int) -> tuple[int, ...]:
    """The wrong results that the base writes at a step."""
    kind = hazard(value, delta)
    result = value + delta
    if kind == "slip":
        return (result - 1, result + 1)
    if kind in TRAPS:
        return (misconception(value, delta),)
    return ()


def _single_mistakes(problem: Problem) -> Iterator[list[int]]:
    """Workings with one step negated, or off by 1 or by 10, and all other steps right."""
    for i, right in enumerate(problem.values):
        for wrong in (-right, right - 1, right + 1, right - 10, right + 10):
            if wrong != right:
                later = [result - right + wrong for result in problem.values[i + 1 :]]
                yield [*problem.values[:i], wrong, *later]


def is_near_miss(problem: Problem, text: str) -> bool:
    """Whether one step of a working is wrong, and every other step follows from the one before."""
    if read_working(problem, text) is None:
        return False
    return len(faulty_spans(problem.question, text)) == 1


def faulty_spans(question: str, text: str) -> tuple[Span, ...]:
    """Spans of the results in a working that do not follow from the line before.

    Args:
        question: "3 A-7".
        text: the working, "A-7=4\\n#4". It is read up to the first line that is no step.

    Returns:
        (start, end) of each wrong result in characters: ((4, 5),).
    """
    problem = parse_problem(question)
    spans = []
    line_start = 0
    value = problem.start
    lines = text.split("\n", len(problem.deltas))
    for delta, line in zip(problem.deltas, lines, strict=False):
        head, equals, result = line.partition("=")
        # Nine digits at most: Python refuses to convert thousands of them.
        if not equals or re.fullmatch(r"-?\d{1,9}", result) is None:
            break
        line_end = line_start + len(line)
        if int(result) != value + delta:
            spans.append((line_start + len(head) + 1, line_end))
        value = int(result)
        line_start = line_end + 1
    return tuple(spans)


def named_steps(named: Naming, words: dict[str, str] = WORDS) -> str:
    """A critique's text: "A sign lost; C carry lost"; "all right" if no step is named."""
    phrases = []
    for step, kind in sorted(named.items()):
        label = LABELS[step - 1]
        phrases.append(f"{label} {words[kind]}")
    return "; ".join(phrases) or "all right"


def oracle_critique(question: str, words: dict[str, str] = WORDS) -> str:
    """Name every hazard on the right path by step and kind, never a result."""
    return named_steps(parse_problem(question).hazards, words)


def family(problem: Problem) -> str | None:
    """The family of a problem, or None for mixtures, which only the base's training mix holds.

    A plateau problem has three traps or more. Every working that misses one of them ends in a wrong
    result: mistakes never cancel.
    """
    hazards = problem.hazards
    traps = problem.traps
    slips = len(hazards) - len(traps)
    if not hazards:
        return "no-trap"
    if not traps and slips >= 2:
        return "learnable"
    if len(traps) >= 3 and not slips and not _cancels(problem):
        return "plateau"
    return None


def _subsets(traps: Naming, sizes: range) -> Iterator[Naming]:
    for size in sizes:
        for subset in combinations(traps.items(), size):
            yield dict(subset)


def _cancels(problem: Problem) -> bool:
    """True if some partly corrected working still ends in the right result."""
    traps = problem.traps
    right = problem.values[-1]
    subsets = _subsets(traps, range(len(traps)))
    return any(work(problem, named)[-1] == right for named in subsets)


def in_range(problem: Problem) -> bool:
    """True if every working, corrected at any subset of the traps, stays within -LIMIT..LIMIT."""
    traps = problem.traps
    for named in _subsets(traps, range(len(traps) + 1)):
        results = work(problem, named)
        if max(results) > LIMIT or min(results) < -LIMIT:
            return False
    return True


def sample_problem(family_name: str | None, split: str, rng: random.Random) -> Problem:
    """Draw a problem of a family from a split, by rejection.

    Args:
        family_name: one of FAMILIES; None: any problem, mixtures included.
        split: one of SPLITS.
        rng: source of the draws.
    """
    operands = OPERANDS[family_name]
    shortest = 4 if family_name == "plateau" else 3
    while True:
        steps = rng.randint(shortest, 5)
        start = rng.randint(-9, 19)
        deltas = []
        for _ in range(steps):
            sign = rng.choice((-1, 1))
            deltas.append(sign * rng.choice(operands))
        problem = Problem(start, tuple(deltas))
        # The hash is the cheapest of the three conditions, and most draws fail it.
        if split_of(problem.question, SPLITS) != split:
            continue
        if family_name is not None and family(problem) != family_name:
            continue
        if in_range(problem):
            return problem


def problems(family_name: str, split: str, count: int, seed: int) -> list[Problem]:
    """Different problems of a family and split.

    Args:
        family_name: one of FAMILIES.
        split: one of SPLITS.
        count: number of problems.
        seed: the same seed gives the same list.

    Raises:
        ValueError: the family has fewer.
    """
    rng = random.Random(f"{family_name}/{split}/{seed}")
    source = f"lab/chain, {family_name} in {split}"
    return draw_different(lambda known: sample_problem(family_name, split, rng), count, source)
