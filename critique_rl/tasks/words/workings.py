"""The working of a word problem, derived from its numbers and its answer.

The data sets here come without equations. A working of one or two operations is searched for among
all that the numbers of the question allow. It is taken only where no other one gives the answer:
"25 - 18 + 7" and "25 + 7 - 18" are the same, "2 + 2" and "2 * 2" are not. So it may still be a
coincidence; `runs/results/words.md` counts how many are.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import combinations, permutations
from typing import Any

from critique_rl.hashing import uniform
from critique_rl.tasks.answer_text import number_value

WORDS = {
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "eleven": 11,
    "twelve": 12,
    "thirteen": 13,
    "fourteen": 14,
    "fifteen": 15,
    "sixteen": 16,
    "seventeen": 17,
    "eighteen": 18,
    "nineteen": 19,
    "twenty": 20,
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "seventy": 70,
    "eighty": 80,
    "ninety": 90,
}
"""A number in words -> its value."""
NUMBER = re.compile(
    r"(?<![\w.,/])(?P<digits>\d{1,3}(?:,\d{3})+(?!\d)|\d{1,12})(?P<decimals>\.\d{1,9})?(?![\d/])"
    r"|\b(?P<tens>twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)"
    r"(?:[- ](?P<unit>one|two|three|four|five|six|seven|eight|nine))?\b"
    r"|\b(?P<word>two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen"
    r"|fifteen|sixteen|seventeen|eighteen|nineteen)\b",
    re.IGNORECASE,
)
"""A number in digits or words. "One" alone is mostly a pronoun, and is not read."""
LARGE = re.compile(r"(?i)\b(?:hundred|thousand|million|dozen)s?\b")
"""Words that multiply the number before them, which `NUMBER` does not read."""
MOST_NUMBERS = 6
"""Numbers of a question beyond which nearly any answer has several workings."""
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
"""Sign -> the operation."""
DECIMALS = 10**4
"""A quotient has at most four digits after the point."""


@dataclass(frozen=True)
class Step:
    """One operation on two numbers, none of them negative."""

    left: Fraction
    sign: str
    right: Fraction

    @property
    def result(self) -> Fraction:
        """The exact result."""
        return self.apply(self.left, self.right)

    @property
    def apply(self) -> Callable[[Any, Any], Any]:
        """The operation on any two numbers."""
        return OPERATIONS[self.sign]

    @property
    def expression(self) -> str:
        """The operation without its result, such as "155 - 140"."""
        return f"{decimal(self.left)} {self.sign} {decimal(self.right)}"

    def __str__(self) -> str:
        return f"{self.expression} = {decimal(self.result)}"


Working = tuple[Step, ...]
"""One or two steps; the second one reads the result of the first."""


def question_numbers(question: str) -> list[Fraction]:
    """The numbers of a question in their order, in digits or words."""
    return [_value(match) for match in NUMBER.finditer(question)]


def _value(match: re.Match[str]) -> Fraction:
    digits = match["digits"]
    if digits:
        decimals = match["decimals"] or ""
        return Fraction(digits.replace(",", "") + decimals)
    total = 0
    for name in ("tens", "unit", "word"):
        word = match[name] or ""
        total += WORDS.get(word.lower(), 0)
    return Fraction(total)


@lru_cache(maxsize=4096)
def derive_working(question: str, answer: str) -> Working:
    """The shortest working from the numbers of the question to the answer.

    Returns:
        (): there is none of at most two steps, or there are several of the same length.
    """
    gold = number_value(answer)
    numbers = question_numbers(question)
    if gold is None or not 2 <= len(numbers) <= MOST_NUMBERS or LARGE.search(question):
        return ()
    for candidates in (_one_step(numbers), _two_steps(numbers)):
        right = [working for working in candidates if working[-1].result == gold]
        if not right:
            continue
        meanings = {_meaning(working) for working in right}
        if len(meanings) > 1:
            return ()
        return right[0]
    return ()


def other_workings(question: str) -> list[Working]:
    """All workings of one step that the numbers of a question allow."""
    return list(_one_step(question_numbers(question)))


def written(working: Working) -> str:
    """The working and its answer, as an attempt has it; "" for none."""
    if not working:
        return ""
    lines = [str(step) for step in working]
    return "\n".join([*lines, f"Answer: {decimal(working[-1].result)}"])


def decimal(number: Fraction) -> str:
    """A number of a working as it is written: 3, or 6.23."""
    if number.denominator == 1:
        return str(number.numerator)
    return repr(float(number))


def _one_step(numbers: Sequence[Fraction]) -> Iterator[Working]:
    for left, right in combinations(numbers, 2):
        for step in _steps(left, right):
            yield (step,)


def _two_steps(numbers: Sequence[Fraction]) -> Iterator[Working]:
    places = range(len(numbers))
    for i, j, k in permutations(places, 3):
        if i > j:
            continue
        for first in _steps(numbers[i], numbers[j]):
            for second in _steps(first.result, numbers[k]):
                yield (first, second)


def _steps(left: Fraction, right: Fraction) -> Iterator[Step]:
    """Every operation on two numbers whose result is positive and a short decimal."""
    yield Step(left, "+", right)
    yield Step(left, "*", right)
    for high, low in permutations((left, right)):
        if high > low:
            yield Step(high, "-", low)
        if low > 0:
            quotient = Step(high, "/", low)
            if DECIMALS % quotient.result.denominator == 0:
                yield quotient


def _meaning(working: Working) -> float:
    """What the working gives with other numbers in the place of these.

    Workings that share it are one: "20 - 5 - 8" and "20 - 8 - 5", "3 * 8 / 2" and "8 / 2 * 3".
    """
    first = working[0]
    result = first.apply(_stand_in(first.left), _stand_in(first.right))
    for step in working[1:]:
        if step.left == first.result:
            result = step.apply(result, _stand_in(step.right))
        else:
            result = step.apply(_stand_in(step.left), result)
    return round(result, 9)


def _stand_in(number: Fraction) -> float:
    return 1 + uniform(str(number))
