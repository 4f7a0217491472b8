"""What follows a number: its unit, a percent sign, words such as "million", or another form."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import takewhile

from critique_rl.tasks.answers.vocabulary import MONTHS, SHORT_MONTHS, WEEKDAYS, vocabulary

WORDS = ("word", "sign")
"""Kinds of tokens that name a unit."""
LONGEST = 400
"""Characters after a number that are looked at."""
FACTORS = {
    "%": Fraction(1, 100),
    "percent": Fraction(1, 100),
    "per cent": Fraction(1, 100),
    "\u2030": Fraction(1, 1000),
    "dozen": Fraction(12),
    "hundred": Fraction(100),
    "thousand": Fraction(1000),
    "lakh": Fraction(100_000),
    "million": Fraction(10**6),
    "crore": Fraction(10**7),
    "billion": Fraction(10**9),
    "trillion": Fraction(10**12),
    "mn": Fraction(10**6),
    "mio": Fraction(10**6),
    "mln": Fraction(10**6),
    "bn": Fraction(10**9),
    "bln": Fraction(10**9),
    "mrd": Fraction(10**9),
    "tn": Fraction(10**12),
    "grand": Fraction(1000),
    "dz": Fraction(12),
}
"""Word after a number -> what it multiplies it by."""
MONEY_FACTORS = {"k": "thousand", "m": "million", "b": "billion", "t": "trillion"}
"""Letters that multiply an amount of money; after other numbers they are units."""
CURRENCIES = frozenset("$\u20ac\u00a3\u00a5\u20b9")
NAMES = {
    "meter": "m",
    "metre": "m",
    "kilometer": "km",
    "kilometre": "km",
    "centimeter": "cm",
    "centimetre": "cm",
    "millimeter": "mm",
    "millimetre": "mm",
    "gram": "g",
    "kilogram": "kg",
    "milligram": "mg",
    "second": "s",
    "sec": "s",
    "minute": "min",
    "hour": "h",
    "hr": "h",
    "liter": "l",
    "litre": "l",
    "L": "l",
    "milliliter": "ml",
    "millilitre": "ml",
    "mL": "ml",
    "foot": "ft",
    "feet": "ft",
    "inch": "in",
    "inche": "in",
    "mile": "mi",
    "yard": "yd",
    "pound": "lb",
    "lbs": "lb",
    "ounce": "oz",
    "degree": "\u00b0",
    "deg": "\u00b0",
    "dollar": "$",
    "\uff04": "$",
    "us\uff04": "$",
    "usd": "$",
    "euro": "\u20ac",
    "eur": "\u20ac",
    "gbp": "\u00a3",
    "yen": "\u00a5",
    "jpy": "\u00a5",
    "rupee": "\u20b9",
    "inr": "\u20b9",
    "newton": "N",
    "joule": "J",
    "watt": "W",
    "volt": "V",
    "ampere": "A",
    "amp": "A",
    "ohm": "\u03a9",
    "hertz": "Hz",
    "kelvin": "K",
    "celsius": "C",
    "fahrenheit": "F",
    "mole": "mol",
    "kph": "km/h",
    "kmh": "km/h",
    "mph": "mi/h",
    "cent": "\u00a2",
    "people": "person",
    "men": "man",
    "women": "woman",
    "children": "child",
    "day": "d",
    "week": "wk",
    "year": "yr",
    "month": "mo",
}
"""Spellings of units -> the short one."""
ATTACHED = frozenset(
    vocabulary(
        "m g h l L V W J N K C F d t mm cm km nm dm mg kg ml mL cl dl ft in mi yd lb oz Hz kHz "
        "MHz GHz kW MW kWh kJ kN Pa kPa Pas min sec hr hrs mph kph rad mol eV keV MeV GeV GB MB KB "
        "TB am pm AM PM px pt bp ms ns µm µs µg Ω kΩ mA mV USD EUR usd m2 cm2 km2 m3 "
        "cm3 ft2 in2 sq cc"
    )
)
"""Units that are written close to their number; other letters there are variables."""
SINGLE = frozenset("mgshlLVAWJNKCFTdt")
"""Units of one letter; other letters are variables."""
OTHER_FORMS = frozenset(
    vocabulary(
        "or and to plus minus times over half halves quarter quarters third thirds fourths fifth "
        "fifths sixths sevenths eighth eighths ninths tenth tenths hundredths thousandths score "
        "pair pairs squared cubed factorial choose mod modulo base pi root than less remainder r "
        "negative wait actually out either neither nor e i x y z n k K between versus vs by isn't "
        "below bc bce doubled tripled halved tens gross mil thou max maximum minimum most least "
        "binary hex hexadecimal octal zero nope guess debt loss "
        "wrong incorrect not if unless point double twice triple past sqrt sin cos tan log ln"
    )
    + MONTHS
    + SHORT_MONTHS
)
"""Words after a number that make it part of another form."""
TOKEN = re.compile(
    r"(?P<word>[^\W\d_]+(?:'s|')?)(?P<power>\s?\^\s?\{?\s?-?\d\s?\}?|[23](?!\w))?"
    r"|(?P<sign>[%\u2030\u00b0$\u20ac\u00a3\u00a5\u20b9\u00a2\uff04])"
    r"|(?P<joint>\s?(?:/|\u00b7|\*|-|\u00d7)\s?)(?=[^\W\d_])|(?P<space>[\s~]+)|(?P<stop>[,;:.?\"')]+)"
    r"|\((?P<note>[^\W\d][^()\d=]{0,60})\)"
)


@dataclass(frozen=True)
class Unit:
    """A unit in one spelling, and the factor of words such as "percent" and "million"."""

    name: str = ""
    factor: Fraction = Fraction(1)


NO_UNIT = Unit()


def read_unit(rest: str, currency: str = "") -> Unit | None:
    """The unit that follows a number.

    Args:
        rest: All that follows the number.
        currency: The sign before the number, if there is one.

    Returns:
        None where more than a unit and words follow.
    """
    if not rest.strip(" .,;:?\"'"):
        # "5..." and "5.," go on.
        is_open = rest.lstrip().startswith("..")
        if is_open:
            return None
        return Unit(_currency_name(currency))
    tokens = _tokens(rest[: LONGEST + 1], is_money=bool(currency))
    if tokens is None or len(rest) > LONGEST:
        return None
    tokens = _with_money_factor(tokens, is_money=bool(currency))
    words = [_lower(token) for kind, token in tokens if kind in ("word", "sign")]
    if words and words[0] in WEEKDAYS:
        return None
    if not OTHER_FORMS.isdisjoint(words):
        return None
    factors = list(takewhile(_factor, words))
    # "5 dollars million" and "5 per thousand" are no plain 5.
    if any(_factor(word) >= 100 for word in words[len(factors) :]):
        return None
    factor = Fraction(math.prod(map(_factor, factors)))
    names = _unit_names(tokens, len(factors))
    if currency:
        names.insert(0, _currency_name(currency))
    return Unit(_join(names), factor)


def _unit_names(tokens: list[tuple[str, str]], factors: int) -> list[str]:
    """The names of units and their joints, those after a stop and the first factors left out."""
    names = []
    words = 0
    is_over = False
    for kind, token in tokens:
        if kind == "stop":
            is_over = True
        if kind == "joint":
            names.append("/" if "/" in token else "\u00b7")
        if kind in ("word", "sign"):
            words += 1
            if words > factors and not is_over:
                names.append(_unit_name(token))
    return names


def _lower(token: str) -> str:
    """A word in lower case; letters keep theirs: N is a unit, and n a variable."""
    if len(token) == 1:
        return token
    return token.lower()


def _currency_name(currency: str) -> str:
    """One spelling of the sign or code before a number."""
    return NAMES.get(currency.lower(), currency)


def _factor(word: str) -> Fraction:
    """What "million" and "millions" multiply a number by; 0 for other words."""
    if word in FACTORS:
        return FACTORS[word]
    return FACTORS.get(word.removesuffix("s"), Fraction(0))


def _with_money_factor(tokens: list[tuple[str, str]], is_money: bool) -> list[tuple[str, str]]:
    """The tokens with the first one spelled out in "\u00a35m" and "5m dollars"."""
    words = [place for place, (kind, _) in enumerate(tokens) if kind in ("word", "sign")]
    if not words:
        return tokens
    if any(kind == "joint" for kind, _ in tokens[: words[0]]):
        return tokens
    if len(words) > 1:
        _, second = tokens[words[1]]
        is_money = is_money or _unit_name(second.lower()) in CURRENCIES
    kind, first = tokens[words[0]]
    name = MONEY_FACTORS.get(first.lower())
    if name is None or not is_money:
        return tokens
    spelled = tokens.copy()
    spelled[words[0]] = (kind, name)
    return spelled


def _tokens(rest: str, is_money: bool) -> list[tuple[str, str]] | None:
    """The tokens after a number; None where one of them is no unit and no word."""
    tokens: list[tuple[str, str]] = []
    place = 0
    while place < len(rest):
        match = TOKEN.match(rest, place)
        if match is None or match.end() == place:
            return None
        kind = match.lastgroup or "stop"
        if kind == "power":
            kind = "word"
        token = match[0]
        is_factor = is_money and not tokens and token.lower() in MONEY_FACTORS
        if kind == "word" and not is_factor and not _is_word(match, place):
            return None
        tokens.append((kind, token))
        place = match.end()
    return tokens


def _is_word(match: re.Match[str], place: int) -> bool:
    """Whether letters after a number are a word or a unit, and no variable."""
    word = match["word"]
    if not word.isascii():
        return True
    if place == 0:
        if word.lower() in FACTORS:
            return True
        is_unit = word in ATTACHED or match[0] in ATTACHED
        return is_unit or len(word) > 3
    if len(word) == 1:
        return word in SINGLE or word == "a"
    return True


def _unit_name(token: str) -> str:
    """One spelling of a unit."""
    match = TOKEN.match(token)
    word = token
    power = ""
    if match is not None and match["word"]:
        word = match["word"]
        power = re.sub(r"[^\d-]", "", match["power"] or "")
    short = word if len(word) <= 3 else word.lower()
    if short not in NAMES and len(short) > 3:
        short = short.removesuffix("s")
    short = NAMES.get(short, short)
    return short + power


def _join(names: list[str]) -> str:
    """ "square" and "cubic" become powers, and "per" a slash."""
    text = " ".join(name for name in names if name)
    text = re.sub(r"(?:square|sq)\.? (\S+)", r"\g<1>2", text)
    text = re.sub(r"cubic (\S+)", r"\g<1>3", text)
    text = re.sub(r" (?:per|/) ", "/", text)
    return re.sub(r"\s?\u00b7\s?", "\u00b7", text)
