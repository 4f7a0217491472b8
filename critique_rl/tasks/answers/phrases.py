"""Short texts: names, words, dates, times and codes, compared without losing what tells them apart.

Case, quotes, the article before a word and the point at the end do not matter. Signs, points
between digits, fractions, brackets and a letter that is the answer do. Of signs such as "!" those
of a sentence are dropped ("Paris!"), and those of a formula are kept ("n!", "f'(x)", "|x|").
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
PARTING = frozenset(",;:")
"""Signs that part words."""
JOINTS = frozenset((",", ";", "and"))
ENDING = frozenset("!?\"'")
"""Signs that end a word of a sentence, or a letter of a formula."""
WORD_BEFORE = re.compile(r"[^\W\d_]{2}[)\]\"'.,!?]{0,3}$")
WORD_AFTER = re.compile(r"\s?[\"']?[^\W\d_]{2}")
QUOTED = re.compile(r"(?<![\w)\]'\"])([\"'])(?=\S)([^\"']{0,300}[^\"'\s])\1(?![\w(\[])")
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
        if same_case:
            return ("right", "")
        return ("unreadable", "another case")
    is_marked = re.search(r"[*'\"!?|]$", plain_answer) is not None
    is_choice = CHOICE.fullmatch(plain_gold) is not None and not is_marked
    if is_choice and read_marked_letter(answer) == plain_gold:
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
    matches = list(TOKEN.finditer(plain))
    for place, match in enumerate(matches):
        token = match[0]
        before = matches[place - 1] if place else None
        after = matches[place + 1] if place + 1 < len(matches) else None
        if _is_punctuation(plain, match):
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
    is_spelled_out = re.fullmatch(r"(?:[^\W\d_]\.\s?){1,9}[^\W\d_]\.?", plain) is not None
    # "a.b" may be a product.
    if is_spelled_out and (plain.isupper() or plain.endswith(".")):
        return ["".join(words)]
    return words


def _is_thousands(token: str) -> bool:
    return re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", token) is not None


def _is_punctuation(plain: str, match: re.Match[str]) -> bool:
    """Whether a sign is one of a sentence or a quotation, and none of a formula or a number."""
    sign = match[0]
    if sign not in ENDING and sign not in PARTING and sign != ".":
        return False
    before = plain[: match.start()]
    after = plain[match.end() :]
    follows_word = WORD_BEFORE.search(before[-5:]) is not None
    if sign == ".":
        return not _parts_digits(before, after)
    if sign in PARTING:
        if _parts_digits(before, after):
            return False
        return follows_word or (before != "" and WORD_AFTER.match(after[:4]) is not None)
    opens_word = sign in "\"'" and not before.strip() and WORD_AFTER.match(after[:4])
    if sign == "'":
        # Only an s has an apostrophe after it: "James'". Others are primes: "AB'".
        follows_word = follows_word and before.endswith("s")
    ends_word = follows_word and (not after or after[0] in " ,.;:!?)\"'")
    return bool(opens_word or ends_word)


def _parts_digits(before: str, after: str) -> bool:
    """Whether a sign stands beside a digit, as in "1, 2", ".5" and "10:30"."""
    if before.rstrip()[-1:].isdigit():
        return after.lstrip()[:1].isdigit()
    return after[:1].isdigit() and WORD_BEFORE.search(before[-5:]) is None


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
    text = unicodedata.normalize("NFC", text).strip(" \t")
    text = re.sub(r"(?<=[\w)\]}%!?\"'])[.,;:]{1,3}$", "", text)
    text = QUOTED.sub(r"\2", text)
    text = re.sub(r"(?<=[\w)\]}%!?])[.,;:]{1,3}$", "", text).strip()
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
    if not gold:
        return True
    if not answer:
        return True
    if _contains(gold, answer):
        return True
    if _contains(answer, gold):
        return True
    if _are_in_another_form(gold, answer):
        return True
    if gold == _without_capital_a(plain_answer):
        return True
    if answer == _without_capital_a(plain_gold):
        return True
    if _may_state_the_same(set(gold), set(answer)):
        return True
    if _is_initials(gold, answer) or _is_initials(answer, gold):
        return True
    return _is_near("".join(gold), "".join(answer))


def _are_in_another_form(gold: list[str], answer: list[str]) -> bool:
    """Whether two texts hold the same words in another order, joined otherwise or abbreviated."""
    if _letters(gold) == _letters(answer):
        return True
    if _without_joints(gold) == _without_joints(answer):
        return True
    if _without_zeros(gold) == _without_zeros(answer):
        return True
    return sorted(gold) == sorted(answer) or _are_abbreviated(gold, answer)


def _without_zeros(words: list[str]) -> list[str]:
    """The words without leading zeros: "7" may stand for the code "007"."""
    return [word.lstrip("0") for word in words]


def _may_state_the_same(gold: set[str], answer: set[str]) -> bool:
    """Whether both say yes, both say no, or one writes in words what the other has in digits."""
    for statement in (YES, NO):
        if gold & statement and answer & statement:
            return True
    for words, others in ((gold, answer), (answer, gold)):
        if words & NUMBER_WORDS and any(word.isdigit() for word in others):
            return True
    return False


def _without_joints(words: list[str]) -> list[str]:
    """The words of "red, green and blue" without what joins them, and without accents."""
    return [_without_marks(word) for word in words if word not in JOINTS]


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
