"""One text for a question however it is typed: what the split and the search for near repeats read.

Case, spaces, quotes, sentence punctuation and the Unicode form say nothing. Numbers, signs of
arithmetic, brackets and superscripts do: "3.5" and "35", "2+3" and "2-3", "5!" and "5", "3²" and
"32" stay apart, because no mark that is left out joins its neighbours.
"""

from __future__ import annotations

import json
import re
import unicodedata
from itertools import chain, pairwise
from typing import Any

from critique_rl.prompts import LONGEST_TEXT

Token = re.Match[str] | None
"""A match of `TOKEN`; None before the first one and behind the last one."""

TOKEN = re.compile(
    r"(?P<number>\d{1,3}(?:,\d{3}){1,99}(?![\d,])(?:\.\d+)?|\d+(?:\.\d+)*|(?<![\w.])\.\d+)"
    r"|(?P<word>[^\W\d_]{2,}'[^\W\d_]+|[^\W\d_]+)"
    r"|(?P<sign>\S)"
)
"""A number with its points, a word (with an apostrophe inside, as in don't), or one sign."""
SENTENCE_MARKS = frozenset(".,;:?!\u00bf\u00a1\u2026\u3002\u3001\u060c\u061b\u061f\u0964")
SINGLE_QUOTES = dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u00b4\u2032`", "'")
DOUBLE_QUOTES = dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033\u301d\u301e", '"')
DASHES = dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-")
SAME_SIGNS = str.maketrans({**SINGLE_QUOTES, **DOUBLE_QUOTES, **DASHES})
SMALL_FORMS = {"<super>": "^", "<sub>": "_", "<fraction>": " "}
"""Kind of a character's decomposition -> what NFKC would lose: "3²" is not "32"."""

MOST_ACCENTS = 30
JOINER = "\u034f"
"""An invisible character between accents (COMBINING GRAPHEME JOINER)."""


def question_key(prompt: Any) -> str:
    """The last user message of a prompt as one normalised text.

    Args:
        prompt: A text, or messages. Their content is a text, or a list of parts with texts.
    """
    text = last_user_text(prompt)
    key = normalise(text)
    # A question of marks alone, such as "?!", is its own key.
    return key or " ".join(text.split())


def last_user_text(prompt: Any) -> str:
    """The text of the last user message; of all messages where no user speaks."""
    if isinstance(prompt, str):
        return prompt
    asked = [message for message in prompt if message.get("role") == "user"]
    if not asked:
        return json.dumps(prompt, ensure_ascii=False)
    content = asked[-1].get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content)
    return str(content)


def normalise(text: str) -> str:
    """A text without what typing changes: its words, numbers and signs with spaces between.

    One of over `LONGEST_TEXT` characters stays as it is typed.
    """
    if len(text) > LONGEST_TEXT:
        return text
    text = _unicode_form(text)
    is_open = {"'": False, '"': False}
    kept = []
    before = None
    # One token at a time with its neighbours: a list of all takes 200 bytes per character.
    for match, after in pairwise(chain(TOKEN.finditer(text), [None])):
        assert match is not None  # only the last one of a pair is
        is_quote = _is_quotation_mark(text, before, match, is_open)
        is_mark = is_quote or _is_sentence_mark(text, match) or _is_hyphen(before, match, after)
        before = match
        if is_mark:
            continue
        token = match[0]
        if match["word"]:
            token = token.replace("'", "")
        if match["number"]:
            token = token.replace(",", "")
        kept.append(token)
    return " ".join(kept)


class MarkedForms(dict[int, int | str]):
    """For `str.translate`: a superscript and its like -> the character with its mark before it."""

    def __missing__(self, code: int) -> int | str:
        kind, _, _ = unicodedata.decomposition(chr(code)).partition(" ")
        self[code] = code
        if kind in SMALL_FORMS:
            self[code] = SMALL_FORMS[kind] + chr(code)
        return self[code]


class WithoutInvisible(dict[int, int | None]):
    """For `str.translate`: soft hyphens and zero-width spaces -> nothing."""

    def __missing__(self, code: int) -> int | None:
        self[code] = code
        if unicodedata.category(chr(code)) == "Cf":
            self[code] = None
        return self[code]


MARKED_FORMS = MarkedForms()
WITHOUT_INVISIBLE = WithoutInvisible()


def _unicode_form(text: str) -> str:
    """NFKC in lower case, with superscripts marked and one sign for each kind of quote and dash."""
    # Before NFKC, which gives a prime or an acute accent a form with a space.
    text = text.translate(SAME_SIGNS)
    if text.isascii():
        return text.lower()
    text = _with_short_accents(text.translate(MARKED_FORMS))
    lower = unicodedata.normalize("NFKC", text).casefold()
    visible = lower.translate(WITHOUT_INVISIBLE)
    # Once more, because casefold can leave the normal form.
    text = unicodedata.normalize("NFKC", _with_short_accents(visible))
    text = text.translate(SAME_SIGNS)
    return text.replace("\u2044", "/")


def _with_short_accents(text: str) -> str:
    """The text with at most `MOST_ACCENTS` accents on one letter, the others behind a joiner.

    As Unicode's stream-safe format has it: normal forms sort the accents of a letter, and the time
    of it grows with the square of their number.
    """
    run = 0
    position = 0
    parts = []
    for place, character in enumerate(text):
        if not unicodedata.combining(character):
            run = 0
            continue
        run += 1
        if run > MOST_ACCENTS:
            parts += [text[position:place], JOINER]
            position = place
            run = 1
    parts.append(text[position:])
    return "".join(parts)


def _is_quotation_mark(
    text: str, before: Token, match: re.Match[str], is_open: dict[str, bool]
) -> bool:
    """Whether a token quotes, and is none of the marks of f'(x), 5' or 3".

    Args:
        text: The text.
        before: The token before it.
        match: The token.
        is_open: Mark -> whether it is open; changed by a token that quotes.
    """
    sign = match[0]
    if sign not in is_open:
        return False
    start = match.start()
    letter = text[start - 1 : start]
    opens = not letter.isalnum() and letter not in (")", "]", "'", '"')
    # After a digit, a bracket or a single letter a mark that was not opened is a prime.
    is_prime = letter in (")", "]") or letter.isdigit() or _ends_in_letter(before, match)
    if is_open[sign]:
        is_open[sign] = False
        return True
    if opens:
        is_open[sign] = True
        return True
    return not is_prime


def _ends_in_letter(before: Token, match: re.Match[str]) -> bool:
    """True where the token directly before another is one letter, or another prime."""
    if before is None:
        return False
    return before.end() == match.start() and len(before[0]) == 1


def _is_sentence_mark(text: str, match: re.Match[str]) -> bool:
    sign = match[0]
    if sign not in SENTENCE_MARKS:
        return False
    if sign != "!":
        return True
    start = match.start()
    before = text[start - 1 : start]
    if not before:
        return True
    # A factorial: "5!", "n!", "(2+1)!", but not "Hello!".
    if before.isdigit() or before in (")", "]", "!"):
        return False
    word = re.search(r"[^\W\d_]*$", text[max(0, start - 2) : start])
    letters = len(word[0]) if word else 0
    return letters != 1


def _is_hyphen(before: Token, match: re.Match[str], after: Token) -> bool:
    """True for a dash between two words, which is no minus: one letter is a variable."""
    if match[0] != "-":
        return False
    return _is_long_word(before) and _is_long_word(after)


def _is_long_word(token: Token) -> bool:
    return token is not None and bool(token["word"]) and len(token[0]) > 1
