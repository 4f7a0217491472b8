"""A gold answer as text, and the numbers of a text as they are written."""

from __future__ import annotations

import re
from fractions import Fraction

from critique_rl.prompts import LONGEST_TEXT
from critique_rl.tasks.answers.marked import marked_part
from critique_rl.tasks.answers.numbers import read_quantity
from critique_rl.tasks.row import Row

# A minus after a digit or a bracket is a subtraction.
SIGN = r"(?:(?<![\w)])[-+])?"
DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\.)\.\d+"
EXPONENT_OR_DENOMINATOR = r"(?:[eE][-+]?\d{1,3}(?!\d)|/\d+)?"
# ASCII digits only: int() also reads other scripts' digits, and a policy would find that out.
NUMBER = re.compile(rf"(?<!\w)(?<!\d\.){SIGN}(?:{DIGITS}){EXPONENT_OR_DENOMINATOR}", re.ASCII)
"""A number in running text. Verifiers read more forms: `answers.numbers`."""
PLAIN_UNITS = ("", "$", "\u20ac", "\u00a3")
"""Signs beside a plain number."""
CODE = re.compile(r"[-+]?0\d+")
LONGEST_NUMBER = 400
"""Characters of the longest number whose value is taken."""
LARGE_EXPONENT = re.compile(r"[eE][-+]?[\d_]{4}")


NO_GOLD = 'no gold answer: row["answer"] is missing, or has over 1,000,000 characters'
"""The reason of an answer that nothing can be compared with."""


def gold_answer(row: Row) -> str:
    """row["answer"] as text.

    Returns:
        "" where the row has no answer, one of over `LONGEST_TEXT` characters, or an integer with
        more digits than Python prints.
    """
    try:
        gold = str(row.get("answer", ""))
    except ValueError:
        return ""
    if len(gold) > LONGEST_TEXT:
        return ""
    return gold


def final_answer(answer: str) -> str:
    """A gold answer without its working.

    Returns:
        The text after "####" in the last line, as GSM8K ends its solutions; any other text as it
        is, such as one whose last heading is followed by more.
    """
    _, mark, last = answer.rpartition("####")
    final = last.strip()
    if not mark or not final or "\n" in final or final.startswith("#"):
        return answer
    return final


def told_answer(row: Row) -> str:
    """The gold answer for whoever is told it, without its working; "" where the row has none.

    A 0 is an answer.
    """
    return final_answer(_cell(row, "answer"))


def told_solution(row: Row) -> str:
    """The worked solution: of the column solution, else of an answer that ends in "####"."""
    solution = _cell(row, "solution")
    answer = _cell(row, "answer")
    if solution or final_answer(answer) == answer:
        return solution
    return answer


def _cell(row: Row, column: str) -> str:
    value = row.get(column)
    if value is None:
        return ""
    try:
        return str(value)
    # An integer with more digits than Python prints.
    except ValueError:
        return ""


def number_value(number: str) -> Fraction | None:
    """The exact value of a decimal number; None for other texts, and for longer ones."""
    # A short text may be a number of a billion digits: 1e999999999.
    if len(number) > LONGEST_NUMBER or LARGE_EXPONENT.search(number):
        return None
    try:
        return Fraction(number)
    except (ValueError, ZeroDivisionError):
        return None


def is_number(answer: str) -> bool:
    """True where a gold answer is a number, with at most a unit sign or a declaration.

    "18", "$1,200" and "... #### 18" are; "12 apples" and the code "007" are not.
    """
    if len(answer) > LONGEST_TEXT:
        return False
    part = marked_part(answer)
    text = answer if part is None else part
    if CODE.fullmatch(text.strip()):
        return False
    quantity = read_quantity(text)
    if quantity is None or not quantity.is_certain:
        return False
    is_plain = re.search(r"[^\W\de]|e(?!\d|[-+]\d)", re.sub(r"\\[a-z]+|\{|\}", "", text)) is None
    return is_plain and quantity.unit.name in PLAIN_UNITS
