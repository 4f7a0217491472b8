"""Compare formulas: numbers exactly, words as words, lists and intervals part by part.

Single expressions go to a library (`isolated_child`), which would take
"3 1/2" for 1, "ABC" for "CAB", (1, 2) for {1, 2} and 2.004 for 2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from critique_rl.tasks.answers.dates import read_dates, read_time
from critique_rl.tasks.answers.marked import declared_part, last_box
from critique_rl.tasks.answers.numbers import (
    LEAD_WORDS,
    Quantity,
    compare_quantities,
    read_last_quantity,
)
from critique_rl.tasks.answers.phrases import compare_phrases, read_gold_quantity, read_quantity
from critique_rl.tasks.answers.plain import plain_text
from critique_rl.tasks.answers.units import read_unit
from critique_rl.tasks.answers.vocabulary import vocabulary
from critique_rl.types import Outcome

Judgement = tuple[Outcome, str]
"""(outcome, reason)."""
SameExpression = Callable[[str, str], Judgement]
"""Compares two expressions in LaTeX: (gold, answer) -> judgement."""
TAIL = 4000
"""Characters at the end of an unmarked text that are searched for its answer."""
LONGEST = 10_000
"""Characters of the longest formula that is compared."""
MOST_PARTS = 24
"""Elements of the longest list that is compared."""
FORMULA = re.compile(
    r"\$\$([^$]{1,2000})\$\$|\$([^$]{1,2000})\$|\\\(((?:(?!\\\)).){1,2000})\\\)"
    r"|\\\[((?:(?!\\\]).){1,2000})\\\]",
    re.DOTALL,
)
FUNCTIONS = frozenset(
    vocabulary(
        "sqrt pi sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp min max "
        "gcd lcm lim det deg mod inf infinity infty theta alpha beta gamma"
    )
)
WORD = re.compile(r"(?<![\\A-Za-z])[^\W\d_]{2,}")
ENVIRONMENT = re.compile(r"\\(?:begin|end)\s?\{[a-z]{1,20}\*?\}")
COMMAND = re.compile(r"\\[A-Za-z]+")
CODE_OR_RANGE = re.compile(r"\s*\d+\s?(?:-|:|/\d+/)\s?\d+(?:\s?[-:]\s?\d+)*\s*")
NAME = r"\\?[A-Za-z](?:[a-z]{0,9}|_\{?\w{1,4}\}?)?'?(?:\([^()=]{1,9}\))?"
ASSIGNMENT = re.compile(
    rf"\s*({NAME}|\\(?:vec|overrightarrow)\s?\{{\w{{1,9}}\}})\s*(?:=|\\in(?![a-z])|\u2248)\s*"
)
ASSIGNED_TUPLE = re.compile(r"\(\s*[a-z]\s*(?:,\s*[a-z]\s*){1,3}\)\s*=\s*")
BRACKETS = {"(": ")", "[": "]", "\\{": "\\}"}
ORDER_SIGNS = re.compile(r"\\le(?![a-z])|\\ge(?![a-z])|<|>")
CONDITION_SIGN = re.compile(r"\\(?:le|ge|ne|in)(?![a-z])|[<>]")
VARIABLE = re.compile(r"\s*\\?[A-Za-z][a-z]{0,4}\s*")
SEPARATOR = re.compile(r"\s{0,99}[,;]\s{0,99}(?:and|or)\s|\s(?:and|or)\s|[,;]")
UNION = re.compile(r"\\cup(?![a-z])|\s[Uu]\s|\sor\s")
PLUS_MINUS = re.compile(r"\\[pm][pm](?![a-z])")
CONDITION = re.compile(
    r"\\\{\s*[a-z]\s*(?:\\in\s*\\mathbb\s?\{R\}\s*)?(?:\\mid(?![a-z])|\||:)(.{1,400})\\\}"
)
"""A set by its condition, as in "\\{x : x > 2\\}"."""
SETS = {"\\mathbb{R}": "(-\\infty,\\infty)", "\\{\\}": "\\emptyset", "\\varnothing": "\\emptyset"}
"""Sets -> the spelling that is compared."""
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
CONNECTED = re.compile(r"\s*(?:,|;|,?\s*and|,?\s*or)\s*")
BEFORE_UNIT = re.compile(r"(?:[\d})]|(?<![A-Za-z])[a-z]|\\[a-z]{1,9})$")
NOT_WORKED_OUT = re.compile(r"(?:[\d\s+\-*/\u00d7\u00b7().,{}^]|\\frac){1,400}")
"""Sums and products of numbers: a question may consist of one."""
ATTACHED_LETTERS = re.compile(r"\d(?![eE][-+]?\d)[A-Za-z]")
DROPPED_SIGN = re.compile(
    r"[\"?]|\^\s?\{?\s?(?:\\dagger|\\top|\\ast|\*|T(?![A-Za-z])|\\intercal)|(?<=\w)\*(?!\s?[\w(\\])"
)
"""Signs that change a formula and that the library drops: "A^T", "z^*"."""
SLASH_PRODUCT = re.compile(r"/\s?\d+(?:[A-Za-z](?![A-Za-z])|\()")
"""The start of "1/2x", which is x/2 for some and 1/(2x) for others."""
UNFINISHED = re.compile(r"[-+*/^=<>\u00d7\u00b7_]$|^[*/^=\u00d7\u00b7]")
UNIT_START = re.compile(r"\s[A-Za-z\u00b5\u03a9]|[\u00b0%\u20ac\uff04]|\s\u00b0")


def answer_part(text: str) -> str:
    """The part of a completion that holds its answer; "" where no part does.

    Returns:
        The last box, else the formula or statement after "answer is", else the last formula or
        number of a text that marks nothing.
    """
    box = last_box(text, longest=None)
    if box is not None:
        return box
    declared = declared_part(text)
    if declared is not None:
        return _declared_formula(declared)
    tail = text[-TAIL:]
    last = None
    for match in FORMULA.finditer(tail):
        last = match
    if last is not None and not re.search(r"\d", tail[last.end() :]):
        return last[last.lastindex or 0]
    quantity = read_last_quantity(tail)
    if quantity is None:
        return ""
    return _with_unit(quantity)


def _with_unit(quantity: Quantity) -> str:
    """A number and its unit as one text; the number alone where words follow it."""
    unit = quantity.unit.name
    if quantity.unit.factor == Fraction(1, 100):
        unit = "%"
    text = f"{quantity.text} {unit}".strip()
    again = read_quantity(text)
    if again is None or again.unit != quantity.unit:
        return quantity.text
    return text


def _declared_formula(part: str) -> str:
    """The formulas of a declared part, as a list where "or" joins them; all of it without any."""
    matches = list(FORMULA.finditer(part))
    if not matches or read_quantity(part) is not None:
        return re.sub(r"[.;]\s.*|[.;]$", "", part, flags=re.DOTALL)
    first = matches[0]
    lead = part[: first.start()]
    if LEAD_WORDS.search(lead) or re.search(r"\d", lead):
        return ""
    contents = [first[first.lastindex or 0]]
    for before, after in pairwise(matches):
        if not CONNECTED.fullmatch(part[before.end() : after.start()]):
            break
        contents.append(after[after.lastindex or 0])
    return " or ".join(contents)


UNSURE = re.compile(r"'|\\prime|\\not(?![a-z])|\\[lc]?dots|\.\.\.|\\sim(?![a-z])|~")
"""Signs that Math-Verify drops: f'(x) would be f(x), and "3..." would be 3."""
UNKNOWN = re.compile(r"\\(?:sin|cos|tan|log|ln)|\\circ|\^\\circ|\u00b0|e\^|\\sqrt\{-")
"""Forms whose values Math-Verify may miss: of two such a difference is not sure."""


def compare_formulas(gold: str, answer: str, same: SameExpression, depth: int = 0) -> Judgement:
    """Compare an answer with the gold answer, of whichever kind that is.

    Args:
        gold: The right answer: a number, a formula, a list, words.
        answer: The part of a completion that holds its answer.
        same: Compares two expressions that are no lists.
        depth: How many lists this comparison is inside of.

    Returns:
        The outcome and its reason.
    """
    if max(len(gold), len(answer)) > LONGEST:
        return "unreadable", f"a formula of over {LONGEST:,} characters"
    plain_gold = plain_text(gold).strip().rstrip(".")
    plain_answer = plain_text(answer).strip().rstrip(".,;")
    if not plain_answer:
        return "unreadable", "no answer of a known form"
    if spelling(plain_gold) == spelling(plain_answer):
        return "right", ""
    if is_phrase(plain_gold):
        return compare_phrases(gold, answer)
    if UNSURE.search(f"{plain_gold} {plain_answer}"):
        return "unreadable", "signs that no rule compares"
    quantity = read_gold_quantity(gold)
    answer_quantity = read_quantity(answer)
    if quantity is not None and answer_quantity is not None:
        names = {_split_name(plain_gold)[0], _split_name(plain_answer)[0]} - {""}
        if len(names) > 1:
            return "unreadable", "another variable"
        return compare_quantities(quantity, answer_quantity)
    fault = _form_fault(plain_gold, plain_answer, quantity is not None, depth)
    if fault:
        return "unreadable", fault
    gold_parts = read_parts(plain_gold)
    answer_parts = read_parts(plain_answer)
    if gold_parts.kind == answer_parts.kind == "scalar":
        return _compare_scalars(gold_parts.elements[0], answer_parts.elements[0], same)
    return compare_parts(gold_parts, answer_parts, same, depth)


def _dropped_signs(plain: str) -> list[str]:
    """The signs of a formula that the library drops, in one spelling and order."""
    signs = [re.sub(r"[\s^{]", "", match[0]) for match in DROPPED_SIGN.finditer(plain)]
    return sorted(signs)


def _form_fault(plain_gold: str, plain_answer: str, is_number: bool, depth: int) -> str:
    """Why no library may be asked about an answer; "" where one may."""
    if _dropped_signs(plain_gold) != _dropped_signs(plain_answer):
        return "a sign that the library drops"
    if is_number and NOT_WORKED_OUT.fullmatch(plain_answer) and "," not in plain_answer:
        return "a number that is not worked out"
    if SLASH_PRODUCT.search(plain_answer):
        return "a slash before a product"
    if is_number and ATTACHED_LETTERS.search(COMMAND.sub(" ", plain_answer)):
        return "letters beside a number"
    if UNFINISHED.search(plain_answer):
        return "no formula that is complete"
    if depth > 3:
        return "lists in lists"
    return ""


def spelling(plain: str) -> str:
    """A formula without the spaces that do not matter."""
    text = re.sub(r"(?<![A-Za-z0-9])\s+|\s+(?![A-Za-z0-9])", "", plain)
    return re.sub(r"\^\{(\w)\}", r"^\1", text)


def is_phrase(plain: str) -> bool:
    """Whether a gold answer is a date, a time, a code, a ratio or words, and no formula.

    One of over `LONGEST` characters is no formula.
    """
    if len(plain) > LONGEST or CODE_OR_RANGE.fullmatch(plain):
        return True
    if read_dates(plain):
        return True
    if read_time(plain) is not None:
        return True
    if re.fullmatch(r"[-+]?0\d+|[A-J]", plain):
        return True
    if read_quantity(plain) is not None:
        return False
    # An order of letters is none of their products, and "dog" is no "god".
    if re.fullmatch(r"(?:[A-Z][a-z]?_?\{?\d*\}?){2,}", plain):
        return True
    if re.fullmatch(r"[A-Za-z]{2,}", plain) and plain not in FUNCTIONS:
        return True
    if re.fullmatch(r"[A-Z]{2,}|[A-Za-z](?:(?:\s?[,<>;-]\s?|\s{0,2})[A-Z]){2,}", plain):
        return True
    return has_words(_split_unit(plain)[0])


def has_words(plain: str) -> bool:
    """Whether a text holds words that are neither functions nor short products of variables."""
    text = COMMAND.sub(" ", ENVIRONMENT.sub(" ", plain))
    for match in WORD.finditer(text):
        word = match[0].lower()
        if word in FUNCTIONS or word in ("or", "and"):
            continue
        if len(word) > 3:
            return True
        if not word.isascii():
            return True
        if word in ("no", "yes", "all", "the", "is", "none"):
            return True
    return False


@dataclass(frozen=True)
class Parts:
    """A formula as its elements."""

    kind: str
    """scalar, list, roots (in any order), union, or the two brackets around the elements."""
    elements: tuple[str, ...]
    is_ambiguous: bool = False
    """True where a comma may stand between thousands."""


def read_parts(plain: str) -> Parts:
    """Take a formula apart: brackets, commas, "or", plus or minus, an inequality."""
    if len(plain) > LONGEST:
        return Parts("scalar", (plain,))
    text = _normal_set(plain.strip())
    interval = read_inequality(text)
    if interval is not None:
        return interval
    unions = [part for part in UNION.split(text) if part.strip()]
    if len(unions) > 1 and all(_outer_brackets(part.strip()) for part in unions):
        return Parts("union", tuple(unions))
    text = _without_assignment(text)
    brackets = _outer_brackets(text)
    if brackets:
        opening, closing = brackets
        inner = text[len(opening) : len(text) - len(closing)]
        elements = _split(inner)
        if len(elements) > 1 or opening == "\\{":
            return Parts(opening + closing, tuple(elements), _has_thousands(inner))
        if opening == "(" and elements:
            return Parts("scalar", (text,))
    elements = _split(text)
    if len(elements) > 1:
        are_solutions = all("=" in part for part in elements)
        is_free = are_solutions or bool(re.search(r"\sor\s|\\pm", text))
        kind = "roots" if is_free else "list"
        return Parts(kind, _expand(elements), _has_thousands(text))
    if PLUS_MINUS.search(text):
        return Parts("roots", _expand([text]))
    return Parts("scalar", (text,))


def _normal_set(text: str) -> str:
    """The set of all numbers, the empty set and a set by its condition in one spelling."""
    text = SETS.get(text.replace(" ", ""), text)
    condition = CONDITION.fullmatch(text)
    if condition is not None:
        return condition[1].strip()
    return text


def _without_assignment(text: str) -> str:
    """ "(1,2)" of "P = (1,2)", "(x,y) = (1,2)" and "x \\in (1,2)"; other texts as they are."""
    assignment = ASSIGNMENT.match(text) or ASSIGNED_TUPLE.match(text)
    if assignment is None:
        return text
    value = text[assignment.end() :].strip()
    if "\\in" in assignment[0] or _outer_brackets(value):
        return value
    return text


def _has_thousands(text: str) -> bool:
    return THOUSANDS.search(text) is not None


def _expand(elements: Sequence[str]) -> tuple[str, ...]:
    """Elements with one plus-or-minus sign as two."""
    expanded = []
    for element in elements:
        if len(PLUS_MINUS.findall(element)) == 1:
            expanded += [PLUS_MINUS.sub("+", element), PLUS_MINUS.sub("-", element)]
        else:
            expanded.append(element)
    return tuple(expanded)


def _outer_brackets(text: str) -> tuple[str, str] | None:
    """The two brackets around all of a text, which need not match in an interval."""
    opening = "\\{" if text.startswith("\\{") else text[:1]
    if opening not in BRACKETS:
        return None
    closing = "\\}" if text.endswith("\\}") else text[-1:]
    if closing not in BRACKETS.values():
        return None
    depth = 0
    for place, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
            if depth == 0 and place < len(text) - 1:
                return None
    if depth == 0:
        return (opening, closing)
    return None


def _split(text: str) -> list[str]:
    """Elements between the commas and words that stand in no bracket."""
    cuts = []
    depths = _depths(text)
    for match in SEPARATOR.finditer(text):
        start = match.start()
        is_thousands = match[0] == "," and THOUSANDS.match(text, start) is not None
        if depths[start] == 0 and not is_thousands:
            cuts.append(match.span())
    elements = []
    position = 0
    for start, end in cuts:
        elements.append(text[position:start])
        position = end
    elements.append(text[position:])
    return [element.strip() for element in elements if element.strip()]


def _depths(text: str) -> list[int]:
    """How many brackets are open before each character."""
    depths = []
    depth = 0
    for character in text:
        if character in ")]}":
            depth -= 1
        depths.append(depth)
        if character in "([{":
            depth += 1
    return depths


def read_inequality(text: str) -> Parts | None:
    """ "1 < x <= 2" and "x > 3" as intervals; None for other texts."""
    signs = ORDER_SIGNS.findall(text)
    sides = [side.strip() for side in ORDER_SIGNS.split(text)]
    if len(signs) == 2 and VARIABLE.fullmatch(sides[1]):
        low, _, high = sides
        first, second = signs
        if first in ("<", "\\le") and second in ("<", "\\le"):
            return _interval(low, high, first == "\\le", second == "\\le")
        if first in (">", "\\ge") and second in (">", "\\ge"):
            return _interval(high, low, second == "\\ge", first == "\\ge")
    if len(signs) != 1 or not all(sides):
        return None
    left, right = sides
    [sign] = signs
    if VARIABLE.fullmatch(right) and not VARIABLE.fullmatch(left):
        left, right = right, left
        sign = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}[sign]
    if not VARIABLE.fullmatch(left) or VARIABLE.fullmatch(right):
        return None
    if sign in (">", "\\ge"):
        return _interval(right, "\\infty", sign == "\\ge", False)
    return _interval("-\\infty", right, False, sign == "\\le")


def _interval(low: str, high: str, has_low: bool, has_high: bool) -> Parts:
    opening = "[" if has_low else "("
    closing = "]" if has_high else ")"
    return Parts(opening + closing, (low, high))


def compare_parts(gold: Parts, answer: Parts, same: SameExpression, depth: int) -> Judgement:
    """Compare two formulas of which at least one is a list, a set, a tuple or an interval."""
    if max(len(gold.elements), len(answer.elements)) > MOST_PARTS:
        return "unreadable", "too many elements"
    if gold.is_ambiguous or answer.is_ambiguous:
        return "unreadable", "a comma between thousands, or between numbers"
    if "scalar" in (gold.kind, answer.kind):
        return _compare_with_scalar(gold.elements, answer.elements)
    if len(gold.elements) != len(answer.elements):
        return _compare_counts(gold, answer)
    in_order = _compare_in_order(gold.elements, answer.elements, same, depth)
    kinds = {gold.kind, answer.kind}
    free_kinds = kinds & {"roots", "\\{\\}", "union"}
    if kinds <= {"list", "roots", "\\{\\}", "union"}:
        if in_order[0] == "right":
            return in_order
        in_any_order = _compare_in_any_order(gold.elements, answer.elements, same, depth)
        if in_any_order[0] == "right" and not free_kinds - (
            {"\\{\\}"} if gold.kind == "list" else set()
        ):
            return "unreadable", "another order"
        return in_any_order
    if len(kinds) == 1:
        return in_order
    if in_order[0] == "wrong" or not kinds & {"list", "roots", "\\{\\}"}:
        return "wrong", "other brackets"
    return "unreadable", "other brackets"


def _compare_counts(gold: Parts, answer: Parts) -> Judgement:
    """Compare parts that hold different numbers of elements."""
    if set(gold.elements) == set(answer.elements):
        # "{1, 1, 2}" for "{1, 2}".
        return "unreadable", "repeated elements"
    return "wrong", "another number of answers"


def _compare_with_scalar(gold: Sequence[str], answer: Sequence[str]) -> Judgement:
    """Compare a list of elements with one expression."""
    if any(CONDITION_SIGN.search(element) for element in (*gold, *answer)):
        return "unreadable", "a condition of another form"
    # "\{5\}" for 5 is no clear case; "3, 5" for 5 is one.
    if len(gold) == len(answer) == 1:
        return "unreadable", "a set of one"
    return "wrong", "another number of answers"


def _compare_in_order(
    gold: Sequence[str], answer: Sequence[str], same: SameExpression, depth: int
) -> Judgement:
    judgement: Judgement = ("right", "")
    for gold_element, answer_element in zip(gold, answer, strict=True):
        element = compare_formulas(gold_element, answer_element, same, depth + 1)
        if element[0] == "wrong":
            return element
        if element[0] != "right":
            judgement = element
    return judgement


def _compare_in_any_order(
    gold: Sequence[str], answer: Sequence[str], same: SameExpression, depth: int
) -> Judgement:
    """Match each gold element with another element of the answer."""
    left = list(answer)
    missing: Judgement = ("right", "")
    for gold_element in gold:
        judgements = [compare_formulas(gold_element, other, same, depth + 1) for other in left]
        outcomes = [outcome for outcome, _ in judgements]
        if "right" in outcomes:
            del left[outcomes.index("right")]
        elif set(outcomes) <= {"wrong"}:
            return "wrong", ""
        else:
            missing = ("unreadable", "an element of no known form")
    return missing


def _compare_scalars(gold: str, answer: str, same: SameExpression) -> Judgement:
    """Compare two expressions, each perhaps with a name before it and a unit after it."""
    gold_name, gold_expression = _split_name(gold)
    answer_name, answer_expression = _split_name(answer)
    if gold_name and answer_name and gold_name != answer_name:
        return "unreadable", "another variable"
    if gold_name or answer_name:
        return compare_formulas(gold_expression, answer_expression, same, 3)
    if _is_equation(gold) != _is_equation(answer):
        return "unreadable", "an equation on one side"
    gold_expression, gold_unit = _split_unit(gold)
    answer_expression, answer_unit = _split_unit(answer)
    if has_words(answer_expression):
        return "unreadable", "words"
    if _is_other_case(gold_expression, answer_expression):
        return "unreadable", "another case"
    judgement = same(_latex(gold_expression), _latex(answer_expression))
    is_unsure = UNKNOWN.search(gold) or UNKNOWN.search(answer)
    if judgement[0] == "wrong" and is_unsure:
        return "unreadable", "values that the library may miss"
    if judgement[0] == "right" and gold_unit and answer_unit and gold_unit != answer_unit:
        return "unreadable", "another unit"
    return judgement


def _is_equation(text: str) -> bool:
    """Whether an equals sign stands outside of braces: in "\\sum_{i=1}" it does not."""
    return "=" in re.sub(r"\{[^{}]*\}", "", text)


def _split_name(text: str) -> tuple[str, str]:
    """("x", "3") of "x = 3"; ("", text) of a text that assigns nothing."""
    match = ASSIGNMENT.match(text)
    if match is None or text.count("=") > 1:
        return "", text
    name = re.sub(r"\(.*|[{}\s]", "", match[1])
    return name, text[match.end() :]


def _split_unit(text: str) -> tuple[str, str]:
    """An expression and the unit after it; "" where there is none."""
    for match in UNIT_START.finditer(text):
        before = text[max(0, match.start() - 40) : match.start()]
        if not BEFORE_UNIT.search(before.rstrip()):
            continue
        unit = read_unit(text[match.start() :])
        if unit is not None and unit.factor == 1:
            return text[: match.start()].strip(), unit.name
    return text, ""


def _is_other_case(gold: str, answer: str) -> bool:
    """Whether two expressions have the same variables but for their case."""
    gold_letters = set(re.findall(r"[A-Za-z]", COMMAND.sub("", gold)))
    answer_letters = set(re.findall(r"[A-Za-z]", COMMAND.sub("", answer)))
    gold_small = {letter.lower() for letter in gold_letters}
    answer_small = {letter.lower() for letter in answer_letters}
    return gold_letters != answer_letters and gold_small == answer_small


def _latex(plain: str) -> str:
    """A plain expression as LaTeX that the library reads in full."""
    text = plain.replace("\u00d7", "\\cdot ").replace("\u00b7", "\\cdot ").replace("**", "^")
    text = re.sub(
        r"(?<![\\A-Za-z])(sqrt|pi|sin|cos|tan|log|ln|exp|theta|infty)(?![A-Za-z])", r"\\\1 ", text
    )
    text = re.sub(r"\\sqrt\s*\(([^()]{1,200})\)", r"\\sqrt{\1}", text)
    text = re.sub(r"\\sqrt\s+(\w)", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<=[\w)])\s?\*\s?(?=[\w(\\])", r"\\cdot ", text)
    text = THOUSANDS.sub("", text)
    text = re.sub(r"\\frac\s?(\d)\s?(\d)", r"\\frac{\1}{\2}", text)
    # A mixed number stands for a sum.
    return re.sub(r"(?<![\d.\w])(\d+)\s?(\\frac\s?\{\d+\}\s?\{\d+\})", r"(\1+\2)", text)
