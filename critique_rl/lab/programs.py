"""Programs of `lab/code`, read and run without Python: pure, strict, and safe on any text.

    def f(x):
     if x<0:return x+3+4
     if x<9:return x-2+1
     return x+5-1

The grammar holds the answers of the world, and programs beside them: any comparison with an
integer, and returns of any short sum of x and integers. What it reads means the same as in Python.
Everything else is unreadable here, also where Python would run it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from critique_rl.types import Verdict

HEAD = "def f(x):"
# No leading zeros: Python refuses them. Bounded repetitions: model text must not take long.
DIGITS = r"(?:0|[1-9]\d{0,5})"
TERM = rf"(?:x|{DIGITS})"
LINE = re.compile(
    rf" (?:if x(<=|>=|==|!=|<|>)(-?{DIGITS}):)?return (-?{TERM}(?:[+-]{TERM}){{0,9}})", re.ASCII
)
"""A line of the body. Groups: comparison, its number, the returned sum."""
SIGNED_TERM = re.compile(rf"([+-]?)({TERM})", re.ASCII)
TEST = re.compile(rf"assert f\((-?{DIGITS})\) == (-?{DIGITS})", re.ASCII)
MOST_LINES = 20
"""Lines of the longest program that is read."""
Test = tuple[int, int]
"""(input, expected value)."""


@dataclass(frozen=True)
class Line:
    """A line `if x<bound:return slope*x+offset`."""

    comparison: str
    """"<", "<=", ">", ">=", "==" or "!="; "": the line returns in any case."""
    bound: int
    """The number that x is compared with; 0 without a comparison."""
    slope: int
    """How often x is added in the returned sum."""
    offset: int
    """The sum of the integers in the returned sum."""

    def holds(self, x: int) -> bool:
        """Whether the line returns for an input."""
        match self.comparison:
            case "<":
                return x < self.bound
            case "<=":
                return x <= self.bound
            case ">":
                return x > self.bound
            case ">=":
                return x >= self.bound
            case "==":
                return x == self.bound
            case "!=":
                return x != self.bound
        return True


Program = tuple[Line, ...]
"""The lines of a program's body."""


def read_program(text: str) -> Program | None:
    """The program that a text is; None for a text of any other grammar."""
    program, _ = _read(text)
    return program


def _read(text: str) -> tuple[Program | None, int]:
    """The program, or None and the number of the first line that is not read."""
    complete = text.removesuffix("\n")
    head, *body = complete.split("\n", MOST_LINES)
    if head != HEAD:
        return None, 1
    lines = []
    for number, line in enumerate(body, start=2):
        match = LINE.fullmatch(line)
        if match is None or number > MOST_LINES:
            return None, number
        comparison, bound, terms = match.groups("")
        slope, offset = _sum_terms(terms)
        number_compared = 0
        if bound:
            number_compared = int(bound)
        line_read = Line(comparison, number_compared, slope, offset)
        lines.append(line_read)
    if not lines:
        return None, 1
    return tuple(lines), 0


def _sum_terms(terms: str) -> tuple[int, int]:
    """(how often x is added, sum of the integers)."""
    slope = 0
    offset = 0
    for sign, term in SIGNED_TERM.findall(terms):
        factor = 1
        if sign == "-":
            factor = -1
        if term == "x":
            slope += factor
        else:
            number = int(term)
            offset += factor * number
    return slope, offset


def run_program(program: Program, x: int) -> int | None:
    """What a program returns for an input; None where no line returns, as in Python."""
    for line in program:
        if line.holds(x):
            return line.slope * x + line.offset
    return None


def write_test(x: int, expected: int) -> str:
    """A test as text: "assert f(-3) == 8"."""
    return f"assert f({x}) == {expected}"


def read_test(text: str) -> Test:
    """The inverse of `write_test`.

    Raises:
        ValueError: the text is no such assertion.
    """
    match = TEST.fullmatch(text)
    if match is None:
        example = write_test(-3, 8)
        raise ValueError(f"got the test {text!r}, expected such as {example!r}")
    x = int(match[1])
    expected = int(match[2])
    return x, expected


def write_values(x: int, value: int | None, expected: int) -> str:
    """A failing test in words: "f(-3) gave 5, expected 8"."""
    return f"f({x}) gave {value}, expected {expected}"


def judge_program(text: str, public_tests: Sequence[str], hidden_tests: Sequence[str]) -> Verdict:
    """Judge a text by its tests, the public ones first.

    Args:
        text: any text.
        public_tests: assertions that feedback may show.
        hidden_tests: assertions that no feedback shows.

    Returns:
        "right" if all tests pass. The reason of any other verdict shows the first public test that
        fails, "f(-3) gave 5, expected 8". Of a hidden test it has the number alone. A text of any
        other grammar is unreadable: "f(-3) gave no answer: SyntaxError: ...".

    Raises:
        ValueError: a test is no assertion of this world.
    """
    public = [read_test(test) for test in public_tests]
    hidden = [read_test(test) for test in hidden_tests]
    program, bad_line = _read(text)
    if program is None:
        first_input, _ = public[0]
        problem = f"SyntaxError: invalid syntax (line {bad_line})"
        reason = f"f({first_input}) gave no answer: {problem}"
        return Verdict("unreadable", reason=reason)
    for x, expected in public:
        value = run_program(program, x)
        if value != expected:
            reason = write_values(x, value, expected)
            return Verdict("wrong", text, reason)
    for number, (x, expected) in enumerate(hidden, start=1):
        value = run_program(program, x)
        if value != expected:
            reason = f"hidden test {number} failed"
            return Verdict("wrong", text, reason)
    return Verdict("right", text)
