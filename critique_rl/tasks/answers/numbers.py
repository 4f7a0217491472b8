"""An exact number with its unit: read in full, or not at all.

A part of a text is a number if words, the number and its unit are all that it holds: of "5:30",
"3-1", "(3, 5)" and "2 or 3" no digit is the answer. Left out: numbers in words, roots that are
irrational, and sums, which `formulas` compares.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction

from critique_rl.prompts import LONGEST_TEXT
from critique_rl.tasks.answers.plain import plain_text
from critique_rl.tasks.answers.units import NO_UNIT, Unit, read_unit
from critique_rl.tasks.answers.vocabulary import MONTHS, SHORT_MONTHS, WEEKDAYS
from critique_rl.types import Outcome

LONGEST = 400
"""Characters of the longest number read: far beyond any task, far below where Python refuses to
convert.
"""
LARGEST_EXPONENT = 999

INTEGER = (
    r"(?:[1-9]\d{0,2}(?:,\d{3})+(?![\d])|\d{1,2}(?:,\d{2})+,\d{3}(?!\d)|\d{1,3}(?:'\d{3})+(?!\d)"
    r"|\d{1,3}(?: \d{3})+(?![\d/])|\d+)"
)
EUROPEAN = r"\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}(?![\d,])|\d{1,3}(?:[ ']\d{3})+,\d+"
DECIMAL = rf"(?:{INTEGER}(?:\.\d+)?|\.\d+)"
SIGNED = rf"\s?[-+]?\s?{DECIMAL}\s?"
LATEX_FRACTION = (
    rf"\\frac\s?(?:\{{(?P<top>{SIGNED})\}}|(?P<top_digit>\d))\s?"
    rf"(?:\{{(?P<bottom>{SIGNED})\}}|(?P<bottom_digit>\d))"
)
EXPONENT = (
    r"\^\s?(?:\{\s?(?P<power>[-+]?\s?\d{1,9})\s?\}|(?P<bare_power>[-+]?\d{1,9})"
    r"|\(\s?(?P<round_power>[-+]?\d{1,9})\s?\))"
)
FORMS = {
    "mixed LaTeX": rf"(?P<integer>{INTEGER})\s?{LATEX_FRACTION}",
    "mixed": r"(?P<integer>\d+)(?: | and )(?P<top>\d{1,9})\s?/\s?(?P<bottom>\d{1,9})",
    "fraction": LATEX_FRACTION,
    "scientific": (
        rf"(?P<factor>{DECIMAL})\s?(?:\u00d7|\*|\u00b7|x)\s?10\s?"
        rf"(?:{EXPONENT}|\*\*\s?(?P<star_power>[-+]?\d{{1,9}}))"
    ),
    "computer": rf"(?P<factor>{DECIMAL})[eE](?P<power>[-+]?\d{{1,9}})",
    "power": rf"(?P<base>{DECIMAL})\s?(?:{EXPONENT}|\*\*\s?(?P<star_power>\d{{1,9}}))",
    "based": (
        r"(?P<digits>\d+)_(?:\{\s?(?:\\?[a-z]{0,6})?\s?(?P<base>\d{1,2})\s?\}"
        r"|(?P<bare_base>\d{1,2}))"
    ),
    "repeating": (
        r"(?P<integer>\d*)\.(?P<digits>\d*)\\overline\s?(?:\{\s?(?P<period>\d{1,30})\s?\}"
        r"|(?P<period_digit>\d))"
    ),
    "root": r"\\sqrt\s?(?:\{\s?(?P<square>\d{1,30})\s?\}|(?P<digit>\d))",
    "european": rf"(?P<european>{EUROPEAN})",
    "slash": rf"(?P<top>{DECIMAL})\s?/\s?(?P<bottom>[-+]?{DECIMAL})",
    "round slash": rf"\((?P<top>{SIGNED})\)\s?/\s?\((?P<bottom>{SIGNED})\)",
    "comma": r"(?P<whole_part>\d+),(?P<decimals>\d{1,2}|\d{4,}"
    r"|(?<!\d0,)(?<=0,)\d{3})(?![\d,])",
    "decimal": rf"(?P<decimal>{DECIMAL})",
}
"""Name -> pattern. The first one that reads on to a known end is the form of the number."""
PATTERNS = {name: re.compile(pattern, re.ASCII) for name, pattern in FORMS.items()}
DIGITS = "0123456789\uff10\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18\uff19½⅓⅔¼¾"
"""Characters that may end a number, those of full width included."""
NUMBER_START = re.compile(r"\d|(?<!\.)\.\d|\\frac|\\sqrt\s?[\d{]", re.ASCII)
SIGN = re.compile(
    r"(?:([-+])\s?)?(?:(?:(?<!\w)US)?[\uff04\u20ac\u00a3\u00a5\u20b9]\s?)?(?:([-+])\s?)?$"
)
CURRENCY = re.compile(
    r"(?:[\uff04\u20ac\u00a3\u00a5\u20b9]|(?<!\w)(?:USD|EUR|GBP|JPY|INR|US\uff04))(?=\s?[-+]?\s?$)"
)
MINUS_WORD = re.compile(r"(?:^|\s)(?:minus|negative)\s$", re.IGNORECASE)
# Signs before a number that are no part of it; others make a form that no rule knows.
BEFORE = re.compile(r"(?:^|[\s=\u2248~#\":]|[^\W\d_a-zA-Z]|\.\.\.)$")
ASSIGNED = re.compile(r"[=\u2248]\s?$")
LEAD = re.compile(r"[^\d\\^{}<>|/*\u00d7\u00b7+\u00b1\[\]_()]{0,400}")
LEAD_WORDS = re.compile(
    r"(?i)(?<!\w)(?:not|no|none|loss|debt|deficit|\w{2,9}n't|never|twice|double|triple|thrice|neither|nor|or|and|between|least|most|less|more|greater|fewer"
    r"|larger|smaller|under|over|above|below|up to|than|from|half|root|sqrt|log|ln|sin|cos|tan"
    r"|square|cube|mod|multiples?|divisible|except|without|unless|either|both|plus|times|minus|if"
    r"|january|february|march|april|june|july|august|september|october|november|december"
    r"|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)(?!\w)"
)
"""Words that make a number before which they stand another thing than the answer."""
DATE_NAMES = "|".join((*MONTHS, *SHORT_MONTHS, *WEEKDAYS))
DATE_LEAD = re.compile(rf"(?i)(?<!\w)(?:{DATE_NAMES})(?!\w)[.,]?\s?(?:the\s)?$")
"""A month or a weekday close before a number; "may" elsewhere is a verb."""
DATE_POINT = re.compile(rf"(?i)\d\.\s?(?:{DATE_NAMES})(?!\w)")
"""The point of "5. May"."""
TERM_BEFORE = re.compile(
    r"(?:(?<![^\W\d_])[^\W\d_]\s?[-+]\s?|[^\W\d_]\s?(?:\+\s?|-\s))[\uff04\u20ac\u00a3\u00a5\u20b9]?\s?$"
)
"""What makes a sign before a number the sign of a sum, or a dash: "n + 1", "profit - 5"."""
LAST_LEAD_WORD = re.compile(
    r"(?i)(?:^|[^\w])(?:not|n't|or|and|to|between|least|most|than|from|half|root|sqrt|log|ln|sin|cos"
    r"|tan|mod|plus|times|minus|x|by|out of|in|may|january|february|march|april|june|july|august"
    r"|september|october|november|december|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|step|line"
    r"|equation|part|page|figure|table|problem|question|section|example|chapter|lemma|theorem"
    r"|case|option|no\.)[\s:]{0,3}$"
)
EXPLANATION = re.compile(
    r"(?i)(?:[,;]?\s|[,;])\(?(?:since|because|as|so|which|given|due|thanks|i\.e\.|that is)"
    r"(?!\w)"
    r"|[,;]\s?(?:not|where|after|we|it|this|when)(?!\w)"
)
MORE_NUMBERS = re.compile(r"(?=\D*\d)(?:[\s\d.,;/%+\uff04\u20ac\u00a3-]|and\s){1,400}", re.ASCII)
"""What makes a list of the number before it, such as "; 72" behind "60"."""
SENTENCE_END = re.compile(r"[.?;](?:\s|$)|\n")
RETRACTION = re.compile(r"(?i)(?<!\w)(?:wait|actually|correction|sorry|oops|no|hmm|or|but)(?!\w)")
DENIAL = re.compile(
    r"(?i)(?<!\w)(?:cannot|not|wrong|incorrect|\w{2,9}n['\u2019]t)(?!\w)"
    r"[^.!?\n]{0,40}[.!?\s]{0,9}$"
)
"""The end of a text that says what the answer is not."""
ALTERNATIVE = re.compile(r"(?i)(?<!\w)(?:or|and)(?!\w)")
EITHER = re.compile(r"(?i)\s?either(?!\w)")
CHAIN = re.compile(r"=|\u2248|\\sim(?![a-z])")
NAME = re.compile(
    r"\s?(?:[^\d=\u2248<>,;]{0,80}\s)?\\?[A-Za-z](?:[A-Za-z]{0,9}|_\{?\w{1,4}\}?)?'?"
    r"(?:\([^()=]{0,20}\))?\s?"
)
SUM = re.compile(r"[\w\s+\-*/^().{}\\\u00d7\u00b7\u00f7%:\uff04\u20ac\u00a3'\[\]!]|,(?=\d{3})")
VARIABLE_TERM = re.compile(
    r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])\s?[-+*/^]|[-+*/^]\s?[A-Za-z](?![A-Za-z])|\d[a-z](?![a-z])"
)
"""A term with a variable: its equation states no value of its other side alone."""
LABEL = re.compile(r"\s*\(?\d{1,3}[.)]\s+(?=\S)")
OTHER_VARIABLE = re.compile(r"=[^=]{1,60}(?:[,;]|and|or)\s?\\?[A-Za-z]\w?\s?=\s?$")


@dataclass(frozen=True)
class Quantity:
    """A number with its unit, as a text states it."""

    value: Fraction
    """The number as written: 5 for "5%" and for "5 million"."""
    text: str
    """The number in its plain spelling."""
    unit: Unit = NO_UNIT
    others: tuple[Fraction, ...] = ()
    """What the number may mean too: 14 for "16_8", 1.5 for "1,5"."""
    is_certain: bool = True
    """False for "1,5", which may be a number or a pair."""
    base: int | None = None
    """8 of "16_8"; None where no base is written."""
    decimals: int | None = None
    """Digits after the point of a decimal number; None for other forms."""

    @property
    def scaled(self) -> Fraction:
        """The number times its unit's factor: 1/20 for "5%"."""
        return self.value * self.unit.factor


def read_quantity(text: str) -> Quantity | None:
    """The number that a marked part of a text holds.

    Args:
        text: What stands in the box, or after "Answer:".

    Returns:
        None where the part holds no number, several, or a form that no rule knows.
    """
    if len(text) > 4 * LONGEST:
        text = text[: 4 * LONGEST]
    part = _first_statement(plain_text(text).strip())
    return _read_chain(part)


def read_last_quantity(text: str) -> Quantity | None:
    """The number that ends an unmarked text, wherever its form is known.

    None for a text of over `LONGEST_TEXT` characters.
    """
    if len(text) > LONGEST_TEXT:
        return None
    end = max(text.rfind(digit) for digit in DIGITS)
    if end < 0:
        return None
    line_start = text.rfind("\n", 0, end) + 1
    line_end = text.find("\n", end)
    if line_end < 0:
        line_end = len(text)
    window_start = max(line_start, end - LONGEST)
    window_end = min(line_end, end + LONGEST)
    window = text[window_start:window_end]
    plain = LABEL.sub("", plain_text(window).strip(), count=1)
    if DENIAL.search(plain):
        return None
    sentences = [part for part in re.split(r"[.?!;](?=\s|$)", plain) if re.search(r"\d", part)]
    if not sentences:
        return None
    return _last_of(sentences[-1].strip())


def _last_of(sentence: str) -> Quantity | None:
    """The last number of a sentence, whose start may hold others."""
    starts = [match.start() for match in NUMBER_START.finditer(sentence)]
    for start in starts:
        lead = sentence[:start]
        quantity = _read_from(sentence, start)
        if quantity is None:
            continue
        sign = SIGN.search(lead)
        before = lead[: sign.start()] if sign else lead
        if not BEFORE.search(before):
            continue
        if ASSIGNED.search(before):
            is_other = OTHER_VARIABLE.search(before) or VARIABLE_TERM.search(before[-20:])
            if is_other:
                return None
            return quantity
        if DATE_LEAD.search(before):
            return None
        is_list = re.search(r"\d\S{0,9}\s?,\s?$|\d\s$", before)
        if is_list or LAST_LEAD_WORD.search(before) or re.search(r"[<>,(\[|:]\s?$", before.strip()):
            if _is_label(before):
                return quantity
            return None
        return quantity
    return None


def _is_label(before: str) -> bool:
    """Whether words and a colon end the text before a number, or a comma after a word."""
    return re.search(r"[^\W\d]\s?[:,]\s?$", before) is not None


def _first_statement(part: str) -> str:
    """What a part states before it explains itself: "5" of "5, since 3 + 2 = 5".

    All of a part that lists numbers, such as "60; 72".
    """
    ends = [match.start() for match in SENTENCE_END.finditer(part)]
    ends += [match.start() for match in EXPLANATION.finditer(part)]
    for end in sorted(ends):
        if DATE_POINT.match(part, max(0, end - 1)):
            return part
        statement = part[:end]
        if re.search(r"\d", statement, re.ASCII) or "\\frac" in statement:
            if RETRACTION.search(part[end:]) or MORE_NUMBERS.fullmatch(part, end):
                return part
            return statement
    return part


def _read_chain(part: str) -> Quantity | None:
    """The number of "3+4 = 7" or "x = 7"; one side suffices where they are nearly equal."""
    sides = CHAIN.split(part)
    if len(sides) == 1:
        return _read_alone(part)
    # "a = 5 or a = 6" gives two answers.
    if any(ALTERNATIVE.search(side) for side in sides[1:]):
        return None
    if EITHER.match(part):
        return None
    for side in sides[:-1]:
        is_name = NAME.fullmatch(side) is not None
        is_sum = not SUM.sub("", side) and not VARIABLE_TERM.search(side)
        if not (is_name or is_sum):
            return None
    quantities = []
    for side in sides:
        quantity = _read_alone(side)
        if quantity is not None:
            quantities.append(quantity)
    last = _read_alone(sides[-1])
    if last is None:
        return None
    # Of nearly equal sides the first one is exact.
    stated = last if "=" in part else quantities[0]
    values = {quantity.value for quantity in quantities} - {stated.value}
    return replace(stated, others=tuple(values))


def _read_alone(part: str) -> Quantity | None:
    """The number of a part that holds words, one number and its unit."""
    part = _without_brackets(part.strip())
    first = NUMBER_START.search(part)
    if first is None:
        return None
    start = first.start()
    lead = part[:start]
    sign = SIGN.search(lead)
    before = lead[: sign.start()] if sign else lead
    if not BEFORE.search(before):
        return None
    if not LEAD.fullmatch(before.replace("...", "")):
        return None
    if sign is not None and sign[0].strip() and TERM_BEFORE.search(lead):
        return None
    minus = MINUS_WORD.search(before)
    words = before[: minus.start()] if minus else before
    if LEAD_WORDS.search(words) or DATE_LEAD.search(words):
        return None
    quantity = _read_from(part, start)
    if quantity is not None and minus is not None:
        return replace(quantity, value=-quantity.value, text=f"-{quantity.text}")
    return quantity


def _without_brackets(part: str) -> str:
    """The part without brackets around all of it; only a number may stand in them."""
    if not part.endswith(".."):
        part = part.rstrip(" .,;:?\"'")
    for opening, closing in (("(", ")"), ("{", "}"), ('"', '"')):
        inner = part[1:-1]
        is_wrapped = part.startswith(opening) and part.endswith(closing) and len(part) > 2
        if is_wrapped and not any(sign in inner for sign in (opening, closing, ",")):
            return inner.strip()
    return part


def _read_from(part: str, start: int) -> Quantity | None:
    """The number that begins at a place, if its unit is all that follows."""
    lead = part[:start]
    sign = SIGN.search(lead)
    signs = "".join(sign.groups("")) if sign else ""
    if len(signs) == 2:
        return None
    currency = CURRENCY.search(lead)
    for name, pattern in PATTERNS.items():
        match = pattern.match(part, start)
        if match is None or len(match[0]) > LONGEST:
            continue
        unit = read_unit(part[match.end() :], currency[0] if currency else "")
        if unit is None:
            continue
        quantity = _evaluate(name, match)
        if quantity is None:
            return None
        sign_factor = -1 if signs == "-" else 1
        return replace(
            quantity,
            value=sign_factor * quantity.value,
            text=signs + _plain_number(match),
            unit=unit,
            others=tuple(sign_factor * other for other in quantity.others),
        )
    return None


def _plain_number(match: re.Match[str]) -> str:
    text = re.sub(r"\\frac\s?\{?([^{}]{1,99}?)\}?\s?\{?([^{}]{1,99})\}?$", r" \1/\2", match[0])
    return " ".join(text.split())


def compare_quantities(
    gold: Quantity, answer: Quantity, needs_unit: bool = False
) -> tuple[Outcome, str]:
    """Compare two numbers exactly.

    Args:
        gold: The right one.
        answer: The one to judge.
        needs_unit: The answer has to state the gold answer's unit, if that has one.

    Returns:
        The outcome and its reason. Two readings of which one is right are "unreadable".
    """
    if gold.base and answer.base and gold.base != answer.base:
        return "unreadable", "another base"
    if _are_equal(gold, answer):
        return _compare_units(gold.unit.name, answer.unit.name, needs_unit)
    if answer.value == gold.value:
        return "unreadable", "the same digits with another factor"
    meanings = (answer.value, answer.scaled, *answer.others)
    golds = (gold.value, gold.scaled, *gold.others)
    if not answer.is_certain:
        return "unreadable", "a decimal comma, or two numbers"
    if answer.others and set(answer.others) & set(golds):
        return "unreadable", "several readings"
    if gold.others and set(gold.others) & set(meanings):
        return "unreadable", "several readings"
    if _is_rounded(gold, answer) or _is_rounded(answer, gold):
        return "unreadable", "one is rounded"
    units = {gold.unit.name, answer.unit.name} - {""}
    if len(units) > 1:
        # "60 minutes" for "1 hour".
        return "unreadable", "another unit"
    return "wrong", ""


def _are_equal(gold: Quantity, answer: Quantity) -> bool:
    """Equal by value, or as "5" and "5%", of which a question may ask for either."""
    if gold.scaled == answer.scaled:
        # "500%" for 5: the question may have asked for 5 percent.
        is_percent_alone = answer.unit.factor < min(gold.unit.factor, Fraction(1))
        return not is_percent_alone or abs(gold.scaled) <= 1
    factors = {gold.unit.factor, answer.unit.factor}
    is_percent = factors == {Fraction(1), Fraction(1, 100)}
    if gold.unit.name or answer.unit.name:
        # "$5" is not "5%".
        return False
    return is_percent and gold.value == answer.value and abs(gold.value) > 1


def _compare_units(gold: str, answer: str, needs_unit: bool) -> tuple[Outcome, str]:
    if not gold or gold == answer or answer.startswith(f"{gold} "):
        return "right", ""
    if not answer:
        if needs_unit:
            return ("unreadable", "no unit")
        return ("right", "")
    return "unreadable", "another unit"


def _is_rounded(short: Quantity, long: Quantity) -> bool:
    """Whether the first number is the second one rounded to two or more decimals."""
    if short.decimals is None or short.decimals < 2:
        return False
    if long.decimals is not None and long.decimals <= short.decimals:
        return False
    distance = abs(short.value - long.value)
    return 2 * distance <= Fraction(1, 10**short.decimals)


def _evaluate(name: str, match: re.Match[str]) -> Quantity | None:
    """The exact value of a number of a known form; None for a denominator of 0 and the like."""
    named = match.groupdict()
    groups = {key: value for key, value in named.items() if value is not None}
    try:
        if name == "decimal":
            text = groups["decimal"]
            _, _, digits = text.partition(".")
            others = _european_meaning(text)
            return Quantity(_number(text), text, others=others, decimals=len(digits))
        if name == "comma":
            value = _number(f"{groups['whole_part']}.{groups['decimals']}")
            return Quantity(value, match[0], is_certain=False, decimals=len(groups["decimals"]))
        if name == "based":
            base = int(groups.get("base") or groups["bare_base"])
            others = _based_meaning(groups["digits"], base)
            return Quantity(Fraction(groups["digits"]), match[0], others=others, base=base)
        value_of = SIMPLE_FORMS[name]
        exact = value_of(groups)
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    if exact is None:
        return None
    return Quantity(exact, match[0])


def _number(text: str) -> Fraction:
    """Raises ValueError for anything but a decimal number."""
    digits = re.sub(r"[,\s']", "", text)
    return Fraction(digits)


def _european_meaning(text: str) -> tuple[Fraction, ...]:
    """1234 for "1.234", and 1.234 for "1,234": whoever writes so may mean either."""
    if re.fullmatch(r"[1-9]\d{0,2}\.\d{3}", text):
        return (Fraction(text.replace(".", "")),)
    if re.fullmatch(r"[1-9]\d{0,2},\d{3}", text):
        return (Fraction(text.replace(",", ".")),)
    return ()


def _based_meaning(digits: str, base: int) -> tuple[Fraction, ...]:
    """The value of digits to a base. Raises ValueError for digits that the base does not have."""
    return (Fraction(int(digits, base)),)


def _top_and_bottom(groups: dict[str, str]) -> Fraction:
    top = groups.get("top") or groups["top_digit"]
    bottom = groups.get("bottom") or groups["bottom_digit"]
    return _number(top) / _number(bottom)


def _mixed(groups: dict[str, str]) -> Fraction | None:
    """A whole number and a proper fraction; None for an improper one, which may be a product."""
    part = _top_and_bottom(groups)
    if not 0 < part < 1:
        return None
    return _number(groups["integer"]) + part


def _power_of(groups: dict[str, str]) -> int:
    """The exponent. Raises OverflowError for one that is no number of a task."""
    names = ("power", "bare_power", "round_power", "star_power")
    text = next(groups[name] for name in names if name in groups)
    power = int(text.replace(" ", ""))
    if abs(power) > LARGEST_EXPONENT:
        raise OverflowError(f"exponent {power}")
    return power


def _scientific(groups: dict[str, str]) -> Fraction:
    return _number(groups["factor"]) * Fraction(10) ** _power_of(groups)


def _power(groups: dict[str, str]) -> Fraction | None:
    base = _number(groups["base"])
    power = _power_of(groups)
    if len(groups["base"]) * abs(power) > 4 * LARGEST_EXPONENT:
        return None
    return base**power


def _repeating(groups: dict[str, str]) -> Fraction:
    digits = groups["digits"]
    period = groups.get("period") or groups["period_digit"]
    start = Fraction(f"{groups['integer'] or '0'}.{digits or '0'}")
    repeated = Fraction(int(period), 10 ** len(period) - 1)
    return start + repeated / 10 ** len(digits)


def _root(groups: dict[str, str]) -> Fraction | None:
    """The root of a square number; None for others, which are irrational."""
    import math

    square = int(groups.get("square") or groups["digit"])
    root = math.isqrt(square)
    if root * root == square:
        return Fraction(root)
    return None


def _european(groups: dict[str, str]) -> Fraction:
    text = groups["european"].replace(".", "")
    return _number(text.replace(",", "."))


SIMPLE_FORMS = {
    "mixed LaTeX": _mixed,
    "mixed": _mixed,
    "fraction": _top_and_bottom,
    "scientific": _scientific,
    "computer": _scientific,
    "power": _power,
    "repeating": _repeating,
    "root": _root,
    "european": _european,
    "slash": _top_and_bottom,
    "round slash": _top_and_bottom,
}
"""Form -> the value of its groups; None for a value that this module does not know."""
