"""Short texts: names, words, dates, times and codes, compared without losing what tells them apart.

Case, quotes, the article before a word and the point at the end do not matter. Signs, points
between digits, fractions, brackets and a letter that is the answer do.
"""

from __future__ import annotations

import difflib
import re
import unicodedata

from critique_rl.tasks.answers.dates import compare_dates, read_dates, read_time
from critique_rl.tasks.answers.letters import read_marked_letter
from critique_rl.tasks.answers.numbers import Quantity, compare_quantities, read_quantity
from critique_rl.tasks.answers.plain import DOLLAR, plain_text
from critique_rl.tasks.answers.vocabulary import vocabulary
from critique_rl.types import Outcome

LONGEST = 800
"""Characters of an answer that are compared."""
ARTICLE = re.compile(r"(?:the|The|THE|an|An|AN|a)\s{1,9}(?=\w)")
CAPITAL_A = re.compile(r"A\s{1,9}(?=[a-z]{2})")
TOKEN = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|\d+(?:\.\d+)?|[^\W\d_]+|_|[^\w\s]")
IGNORED = frozenset(".,;:!?\"'`\u00b7*")
OPERATORS = frozenset("!'*")
"""Signs that end or part words, and that are operators behind a number, a bracket or one letter:
n!, f'(x), x*.
"""
OPERAND = re.compile(r"(?:(?<![^\W\d_])[^\W_]|\d|[)\]}'!*])$")
JOINTS = frozenset((",", "and"))
NEAR = 0.85
"""Similarity from which two texts may be two spellings of one answer."""
NUMBER_WORDS = frozenset(
    vocabulary(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy "
        "eighty ninety hundred thousand million billion half quarter third first second dozen none "
        "once twice"
    )
)
INNER_APOSTROPHE = re.compile(r"(?<=[^\W\d_])'(?=[^\W\d_])")
SUBSCRIPT = re.compile(r"(?<=[A-Za-z)])_\{?(\d{1,3})\}?")
PLAIN_SHORT_WORDS = frozenset(("no", "ok", "st", "nd", "rd", "th", "am", "pm", "of", "in", "at"))
YES = frozenset(("yes", "true", "correct"))
NO = frozenset(("no", "false", "incorrect"))
CHOICE = re.compile(r"[A-J]")
LEADING_ZERO = re.compile(r"[-+]?0\d+")


def compare_phrases(gold: str, answer: str) -> tuple[Outcome, str]:
    """Compare a short text with the right one.

    Args:
        gold: The right answer.
        answer: What the box holds.

    Returns:
        The outcome and its reason; "unreadable" where the two may be spellings of one answer.
    """
    plain_gold = _plain(gold)
    plain_answer = _plain(answer)
    if not plain_answer:
        return "unreadable", "empty"
    gold_tokens = tokens(plain_gold)
    answer_tokens = tokens(plain_answer)
    gold_time = read_time(plain_gold)
    if gold_tokens == answer_tokens:
        same_case = gold_time is not None or _has_same_case(plain_gold, plain_answer)
        return ("right", "") if same_case else ("unreadable", "another case")
    if CHOICE.fullmatch(plain_gold) and read_marked_letter(answer) == plain_gold:
        return "right", ""
    gold_date = read_dates(plain_gold)
    if gold_date:
        return compare_dates(gold_date, read_dates(plain_answer))
    if gold_time is not None:
        return gold_time.compare(read_time(plain_answer))
    quantity = read_gold_quantity(gold)
    if quantity is not None:
        return _compare_numbers(quantity, plain_gold, answer)
    if _may_be_same(gold_tokens, answer_tokens, plain_gold, plain_answer):
        return "unreadable", "neither the gold answer nor surely another one"
    return "wrong", ""


def read_gold_quantity(gold: str) -> Quantity | None:
    """A gold answer as a number; None for a code such as "007"."""
    if LEADING_ZERO.fullmatch(gold.strip()):
        return None
    return read_quantity(gold)


def _compare_numbers(quantity: Quantity, plain_gold: str, answer: str) -> tuple[Outcome, str]:
    answer_quantity = read_quantity(answer)
    if answer_quantity is not None:
        return compare_quantities(quantity, answer_quantity, needs_unit=True)
    words = tokens(_plain(answer))
    if NUMBER_WORDS & set(words) or plain_gold in " ".join(words):
        return "unreadable", "no number in digits"
    if any(word.isdigit() for word in words):
        return "unreadable", "a form of numbers that no rule knows"
    return "wrong", ""


def tokens(plain: str) -> list[str]:
    """The words, numbers and signs that tell an answer from others, in lower case."""
    kept = []
    plain = INNER_APOSTROPHE.sub("", plain)
    matches = list(TOKEN.finditer(plain))
    for place, match in enumerate(matches):
        token = match[0]
        before = matches[place - 1] if place else None
        after = matches[place + 1] if place + 1 < len(matches) else None
        text_before = plain[: match.start()]
        # "!A" is "not A".
        is_negation = token == "!" and not text_before
        is_operand = OPERAND.search(text_before) is not None
        is_operator = is_negation or (token in OPERATORS and is_operand)
        if token in IGNORED and not is_operator and not _parts_digits(plain, match):
            continue
        if token == "-" and _joins_words(plain, match):
            continue
        is_inner_article = token == "the" and before is not None and after is not None
        if is_inner_article:
            continue
        if token == "&":
            token = "and"
        if _is_thousands(token):
            token = token.replace(",", "")
        kept.append(token.casefold())
    return _abbreviation(kept, plain)


def _abbreviation(words: list[str], plain: str) -> list[str]:
    """ "U.S.A." as one word."""
    if re.fullmatch(r"(?:[^\W\d_]\.\s?){1,9}[^\W\d_]\.?", plain):
        return ["".join(words)]
    return words


def _is_thousands(token: str) -> bool:
    return re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", token) is not None


def _parts_digits(plain: str, match: re.Match[str]) -> bool:
    """Whether a sign stands beside a digit, as in "1, 2", ".5" and "10:30"."""
    text_before = plain[: match.start()].rstrip()
    text_after = plain[match.end() :].lstrip()
    if not text_after[:1].isdigit():
        return False
    return text_before[-1:].isdigit() or match[0] in ".*"


def _joins_words(plain: str, match: re.Match[str]) -> bool:
    """Whether a hyphen joins two words of two letters or more."""
    start, end = match.span()
    before = plain[max(0, start - 2) : start]
    after = plain[end : end + 2]
    two_letters = r"[^\W\d_]{2}"
    return bool(re.fullmatch(two_letters, before) and re.fullmatch(two_letters, after))


def _plain(text: str) -> str:
    text = plain_text(text[:LONGEST]).replace(DOLLAR, "$").replace("\n", " ")
    # "H_2O" is "H2O".
    text = SUBSCRIPT.sub(r"\1", text)
    text = unicodedata.normalize("NFC", text).strip(' \t"')
    text = re.sub(r"(?<=[\w)\]}%])[.,;:?]{1,3}$", "", text)
    text = re.sub(r"(?<=[^\W\d_]{2})!{1,3}$", "", text).strip(' "')
    is_quoted = text.startswith("'") and text.endswith("'") and len(text) > 2
    if is_quoted:
        text = text[1:-1]
    if re.fullmatch(r"\([^(),]{1,200}\)", text):
        text = text[1:-1].strip()
    if ARTICLE.match(text):
        text = ARTICLE.sub("", text, count=1)
    return text


def _has_same_case(gold: str, answer: str) -> bool:
    """Whether texts that differ in case only are one: "yes" and "Yes", not "Co" and "CO", "5 M"."""
    letters = re.compile(r"[^\W\d_]+")
    gold_words = letters.findall(gold.replace(".", ""))
    answer_words = letters.findall(answer.replace(".", ""))
    is_symbol = len(gold_words) == 1 and len(gold_words[0]) == 2
    has_digit = any(character.isdigit() for character in gold)
    for word, other in zip(gold_words, answer_words, strict=False):
        if word == other or word.lower() in PLAIN_SHORT_WORDS:
            continue
        is_short_beside_digits = has_digit and len(word) <= 2
        if is_symbol or is_short_beside_digits:
            return False
    return True


def _may_be_same(gold: list[str], answer: list[str], plain_gold: str, plain_answer: str) -> bool:
    """Whether two texts that differ may name the same thing."""
    if not gold or not answer or _contains(gold, answer) or _contains(answer, gold):
        return True
    if sorted(gold) == sorted(answer) or _letters(gold) == _letters(answer):
        return True
    # Items of a list, with "and" before the last one or without, and accents left out.
    gold_text = _without_marks("".join(word for word in gold if word not in JOINTS))
    answer_text = _without_marks("".join(word for word in answer if word not in JOINTS))
    if gold_text == answer_text:
        return True
    if _are_abbreviated(gold, answer):
        return True
    # Codes: "7" may stand for "007".
    gold_digits = [word.lstrip("0") for word in gold]
    answer_digits = [word.lstrip("0") for word in answer]
    if gold_digits == answer_digits:
        return True
    if gold == _without_capital_a(plain_answer) or answer == _without_capital_a(plain_gold):
        return True
    if _share_meaning(set(gold), set(answer)):
        return True
    if _is_initials(gold, answer) or _is_initials(answer, gold):
        return True
    return _is_near("".join(gold), "".join(answer))


def _share_meaning(gold: set[str], answer: set[str]) -> bool:
    """Whether both agree or deny, or one has a number in words where the other has digits."""
    for sense in (YES, NO):
        if gold & sense and answer & sense:
            return True
    for words, others in ((gold, answer), (answer, gold)):
        has_digits = any(word.isdigit() for word in others)
        if has_digits and words & NUMBER_WORDS:
            return True
    return False


def _without_capital_a(plain: str) -> list[str]:
    """The words after a capital "A", which may be an article: "A minor"."""
    if not CAPITAL_A.match(plain):
        return []
    rest = CAPITAL_A.sub("", plain, count=1)
    return tokens(rest)


def _letters(words: list[str]) -> list[str]:
    """The letters and digits of a text in alphabetical order."""
    return sorted(character for word in words for character in word if character.isalnum())


def _are_abbreviated(gold: list[str], answer: list[str]) -> bool:
    """Whether each word is the other text's word or the beginning of it: "Jan", "Mon"."""
    if len(gold) != len(answer):
        return False
    for word, other in zip(gold, answer, strict=True):
        short, long = sorted((word, other), key=len)
        is_beginning = len(short) >= 3 and short.isalpha() and long.startswith(short)
        if word != other and not is_beginning:
            return False
    return True


def _is_initials(short: list[str], long: list[str]) -> bool:
    """Whether one text may be the initials of the other: "USA"."""
    if len(short) != 1 or len(long) < 2:
        return False
    words = [word for word in long if word not in ("of", "the", "and")]
    initials = "".join(word[0] for word in words)
    return short[0] == initials


def _is_near(gold: str, answer: str) -> bool:
    """Whether two texts without digits differ by a few letters only."""
    are_letters = gold.isalpha() and answer.isalpha()
    if not are_letters or min(len(gold), len(answer)) < 5:
        return False
    plain_gold = _without_marks(gold)
    plain_answer = _without_marks(answer)
    matcher = difflib.SequenceMatcher(None, plain_gold, plain_answer)
    return matcher.ratio() >= NEAR


def _without_marks(text: str) -> str:
    """The text without accents."""
    parts = unicodedata.normalize("NFD", text)
    return "".join(letter for letter in parts if not unicodedata.combining(letter))


def _contains(words: list[str], others: list[str]) -> bool:
    """Whether the second list stands in the first one in one piece."""
    count = len(others)
    starts = range(len(words) - count + 1)
    pieces = [words[start : start + count] for start in starts]
    return others in pieces
