"""How an answer is read from a completion: the box, the declared line, the number, the letter.

All searches are linear in the length of the text, so that no text can raise or stall. Left out:
symbolic mathematics, whose libraries hang on hostile input (`isolated_verifiers`).
"""

from __future__ import annotations

import re
from fractions import Fraction

from critique_rl.tasks.row import Row

LONGEST = 400
"""Characters of the longest number read: far beyond any task, far below where Python refuses to
convert.
"""
BOXED = "\\boxed{"

# A minus after a digit or a bracket is a subtraction.
SIGN = r"(?:(?<![\w)])[-+])?"
DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\.)\.\d+"
EXPONENT_OR_DENOMINATOR = r"(?:[eE][-+]?\d{1,3}(?!\d)|/\d+)?"
# ASCII digits only: int() also reads other scripts' digits, and a policy would find that out.
NUMBER = re.compile(rf"(?<!\w)(?<!\d\.){SIGN}(?:{DIGITS}){EXPONENT_OR_DENOMINATOR}", re.ASCII)
UNIT_SIGNS = re.compile(r"[\s$\u20ac\u00a3%.\\]")
DECLARATION = re.compile(r"####|answer\s{0,3}:", re.IGNORECASE)
FRACTION = re.compile(r"\\[dt]?frac\{(-?\d{1,100})\}\{(\d{1,100})\}", re.ASCII)

LETTER_ALONE = re.compile(r"\W{0,9}([A-J])(?:\W{0,9}|[.):,]\s.*)", re.DOTALL)
# No A and no I in these two: they are words of English.
LETTER_FIRST = re.compile(r"\W{0,9}([B-HJ])(?![\w'])")
LETTER = re.compile(r"(?<![\w'])([B-HJ])(?![\w'])")
LETTER_IN_BRACKETS = re.compile(r"\(([A-J])\)")
CHOICE_DECLARATION = re.compile(r"(?:answer|choice|option)(?: is)?\s{0,3}:?", re.IGNORECASE)


def gold_answer(row: Row) -> str:
    """row["answer"] as text.

    Returns:
        "" where the row has no answer, or an integer with more digits than Python prints.
    """
    try:
        return str(row.get("answer", ""))
    except ValueError:
        return ""


def final_answer(answer: str) -> str:
    """A gold answer without its working.

    Returns:
        What stands in the last line after "####", as GSM8K ends its solutions; any other text as it
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


def last_box(text: str, longest: int | None = None) -> str | None:
    r"""Content of the last \boxed{...} of a text.

    Args:
        text: A completion.
        longest: Characters after the box's opening that are searched for its end; None: all.

    Returns:
        The text up to the brace that closes the box. Without that brace all that was searched;
        None where there is no box.
    """
    start = text.rfind(BOXED)
    if start < 0:
        return None
    content_start = start + len(BOXED)
    searched = text[content_start:][:longest]
    depth = 1
    for i, character in enumerate(searched):
        if character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
        if depth == 0:
            return searched[:i]
    return searched


def read_number(text: str) -> str | None:
    """The number that a text declares or ends in, as written; None where there is none."""
    match = _last_match(NUMBER, _number_text(text))
    if match is None or len(match[0]) > LONGEST:
        return None
    return match[0]


def number_value(number: str | None) -> Fraction | None:
    """The exact value of a number as written; None for None and for a denominator of 0."""
    if number is None:
        return None
    digits = number.replace(",", "")
    try:
        return Fraction(digits)
    except (ValueError, ZeroDivisionError):
        return None


def is_number(answer: str) -> bool:
    """True where a gold answer is a number, with at most a unit sign or a declaration.

    "18", "$1,200" and "... #### 18" are; "12 apples" is not.
    """
    number = read_number(answer)
    if number is None or number_value(number) is None:
        return False
    text = _number_text(answer)
    rest = text.replace(number, "", 1)
    return not UNIT_SIGNS.sub("", rest)


def read_letter(text: str) -> str | None:
    r"""The letter of a multiple choice, A to J, that a text declares.

    Returns:
        The letter in the last \boxed{}, else after the last "answer is" or "Answer:", else in all
        of the text. None where there is no letter, or two different ones.
    """
    part, is_declared = _choice_text(text)
    part = part[: 2 * LONGEST]
    part = part.strip()
    bracketed = set(LETTER_IN_BRACKETS.findall(part))
    if not is_declared and len(bracketed) >= 2:
        return None
    match = LETTER_ALONE.fullmatch(part)
    if match is None and is_declared:
        match = LETTER_FIRST.match(part)
    if match is not None:
        return match[1]
    letters = bracketed or set(LETTER.findall(part))
    if len(letters) != 1:
        return None
    letter: str = letters.pop()
    return letter


def _choice_text(text: str) -> tuple[str, bool]:
    """The part of a text to search for a letter, and whether the text declared that part."""
    box = last_box(text, LONGEST)
    if box is not None:
        letter = box.replace("\\text{", "")
        return letter.rstrip("} "), True
    match = _last_match(CHOICE_DECLARATION, text)
    if match is not None:
        return text[match.end() :], True
    return text, False


def _number_text(text: str) -> str:
    r"""The declared part of a text, with \frac{a}{b} as a/b and the minus sign U+2212 as "-"."""
    part = _declared_part(text)
    part = part.replace("\u2212", "-")
    return FRACTION.sub(r"\1/\2", part)


def _declared_part(text: str) -> str:
    r"""Content of the last \boxed{}, else the rest of the last declared line, else all the text."""
    box = last_box(text, LONGEST)
    if box is not None:
        return box
    match = _last_match(DECLARATION, text)
    if match is None:
        return text
    # An answer below its label counts too, so that "Answer:\n5" is read.
    rest = text[match.end() :]
    rest = rest.lstrip("\n* ")
    line, _, _ = rest.partition("\n")
    return line


def _last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    last = None
    for match in pattern.finditer(text):
        last = match
    return last
