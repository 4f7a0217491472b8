"""One text for a question however it is typed: what the split and the search for near repeats read.

Case, spaces, quotes, sentence punctuation and the Unicode form say nothing. Numbers, signs of
arithmetic, brackets and superscripts do: "3.5" and "35", "2+3" and "2-3", "5!" and "5", "3²" and
"32" stay apart, because no mark that is left out joins its neighbours.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

TOKEN = re.compile(
    r"(?P<number>\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?|\d+(?:\.\d+)*|(?<![\w.])\.\d+)"
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
    """A text without what typing changes: its words, numbers and signs with spaces between."""
    text = _unicode_form(text)
    matches = list(TOKEN.finditer(text))
    quotes = _quotation_marks(text, matches)
    kept = []
    for i, match in enumerate(matches):
        is_mark = i in quotes or _is_sentence_mark(text, match) or _is_hyphen(matches, i)
        if is_mark:
            continue
        token = match[0]
        if match["word"]:
            token = token.replace("'", "")
        if match["number"]:
            token = token.replace(",", "")
        kept.append(token)
    return " ".join(kept)


def _unicode_form(text: str) -> str:
    """NFKC in lower case, with superscripts marked and one sign for each kind of quote and dash."""
    # Before NFKC, which gives a prime or an acute accent a form with a space.
    text = text.translate(SAME_SIGNS)
    if text.isascii():
        return text.lower()
    characters = []
    for character in text:
        decomposition = unicodedata.decomposition(character)
        kind, _, _ = decomposition.partition(" ")
        mark = SMALL_FORMS.get(kind, "")
        characters.append(mark + character)
    marked = "".join(characters)
    lower = unicodedata.normalize("NFKC", marked).casefold()
    # Soft hyphens and zero-width spaces are invisible.
    visible = [c for c in lower if unicodedata.category(c) != "Cf"]
    # Once more, because casefold can leave the normal form.
    text = unicodedata.normalize("NFKC", "".join(visible))
    text = text.translate(SAME_SIGNS)
    return text.replace("\u2044", "/")


def _quotation_marks(text: str, matches: list[re.Match[str]]) -> set[int]:
    """Places of the tokens that quote, and not those of f'(x), 5' or 3"."""
    places = set()
    is_open = {"'": False, '"': False}
    for i, match in enumerate(matches):
        sign = match[0]
        if sign not in is_open:
            continue
        start = match.start()
        before = text[start - 1 : start]
        opens = not before.isalnum() and before not in (")", "]", "'", '"')
        # After a digit, a bracket or a single letter a mark that was not opened is a prime.
        is_prime = before in (")", "]") or before.isdigit() or _ends_in_letter(matches, i)
        if is_open[sign]:
            is_open[sign] = False
            places.add(i)
        elif opens:
            is_open[sign] = True
            places.add(i)
        elif not is_prime:
            places.add(i)
    return places


def _ends_in_letter(matches: list[re.Match[str]], i: int) -> bool:
    """True where the token directly before place `i` is one letter, or another prime."""
    if i == 0:
        return False
    before = matches[i - 1]
    is_close = before.end() == matches[i].start()
    return is_close and len(before[0]) == 1


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


def _is_hyphen(matches: list[re.Match[str]], i: int) -> bool:
    """True for a dash between two words, which is no minus: one letter is a variable."""
    has_neighbours = 0 < i < len(matches) - 1
    if matches[i][0] != "-" or not has_neighbours:
        return False
    for neighbour in (matches[i - 1], matches[i + 1]):
        is_long_word = neighbour["word"] and len(neighbour[0]) > 1
        if not is_long_word:
            return False
    return True
