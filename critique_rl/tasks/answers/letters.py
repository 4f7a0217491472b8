"""The letter of a multiple choice, A to J, in the places that mark one.

A letter is marked by a box, by "answer is", by a line of its own, and by the bracket or point that
follows it at the start of a line. "A" and "I" are read wherever "B" is, so no article and no
pronoun is: "A car", "The answer is I think B".
"""

from __future__ import annotations

import re

from critique_rl.prompts import LONGEST_TEXT
from critique_rl.tasks.answers.marked import denies_label, last_box
from critique_rl.tasks.answers.plain import plain_text

LONGEST = 800
"""Characters of a marked part that are read."""
CHOICE_DECLARATION = re.compile(
    r"(?i:(?:answer|choice|option)(?:[*_]{0,3}\s{0,3}[:=\uff1a]|\s{1,3}(?:is|was|would be|should be"
    r"|must be|will be)(?!\w)(?:\s{0,3}:)?))"
)
ADVERB = re.compile(
    r"(?i)(?:therefore|thus|then|hence|simply|indeed|clearly|definitely|probably|likely|most likely"
    r"|actually|obviously|just|the|letter|option|choice|answer)(?![\w'])[\s:,]{1,3}"
)
LETTER = r"[\(\[]{0,2}\s?([A-J])(?![\w'#+*/^=-])\s?[\)\]]{0,2}"
# A letter is followed by an end, a point or bracket with the text of its choice, or a reason.
ALONE = re.compile(rf"[\"']?{LETTER}[\"']?[.,;:!]?\s*")
SMALL_ALONE = re.compile(r"[\"']?[\(\[]?\s?([a-j])\s?[\)\]]?[\"']?[.]?\s*")
LABEL = re.compile(
    r"([A-J])\s?[.):\]]\s?(?=\S)|[\(\[]\s?([A-J])\s?[\)\]][.:,]?\s?(?=\S)|\(?([a-j])\)\s?(?=\S)"
)
REASON = re.compile(
    rf"{LETTER}(?:[.,;:!](?=\s)|\s?[\u2013-]\s|(?=\s?\n|\s(?:because|since|as|which|so|for|due|given"
    r"|not|is (?:the )?(?:right|correct|best))(?!\w)))"
)
ANOTHER = re.compile(
    r"(?:\s?(?:[,/&+]|and|or|nor|but|[\u2013-])\s?)+[\(\[]?(?:option |choice )?[A-J](?![\w'])"
)
RETRACTION = re.compile(r"(?i)(?<!\w)(?:wait|correction|sorry|oops|hmm|wrong|incorrect)(?!\w)")
OPTION_LINE = re.compile(
    r"(?i:(?:(?:so|thus|therefore|hence|i (?:pick|choose|select))[,:]?\s{1,3}(?:it is |it's )?)?"
    r"(?:the\s)?(?:option|choice)\s{0,3}:?\s{1,3})(?=[(\[*\"']{0,3}[A-Ja-j](?![\w']))"
)
"""What stands before the letter in a line such as "Option A" and "So option A"."""
OPTION = re.compile(r"(?i:option|choice)s?\s{1,3}[(\[*\"']{0,3}([A-J])(?!\w)")
OTHER_LINE = re.compile(r"[(\[]?([A-J])(?:[)\].,;]|\s*$)")
BRACKETED = re.compile(r"\(([A-J])\)")
DENIAL = re.compile(
    r"(?i)(?<!\w)(?:not|cannot|\w{2,9}n['\u2019]t|wrong|incorrect|false|rule|ruled|rules|exclude"
    r"|excluded|eliminate|eliminated|except|neither|nor)(?!\w)"
)
"""Words that speak of a choice that is not the answer."""
LINE_LABEL = re.compile(r"(?m)^[ \t]{0,9}[(\[]?([A-J])[.):\]][ \t]{0,9}\S")
LETTER_ALONE = re.compile(r"\W{0,9}([A-J])(?:[\s.)\]\"'*:,$}]{0,9}|[.):,]\s.*)", re.DOTALL)
"""A gold answer that is a letter, perhaps with the text of its choice."""
LAST_WORD = re.compile(
    r"(?:is|be|it's|it\u2019s|choose|pick|select|chose|with|:|therefore|thus|so|hence)\s{1,3}"
    r"[*\"'(]{0,3}([A-J])[*\"')]{0,3}[.!]?\s{0,9}$"
)


def read_letter(text: str) -> str | None:
    r"""The letter of a multiple choice that a text declares.

    Returns:
        The letter in the last \boxed{}, else after the last "answer is" or "Answer:", else the one
        that is marked elsewhere. None where no letter is marked, or two different ones, and for a
        text of over `LONGEST_TEXT` characters.
    """
    if len(text) > LONGEST_TEXT:
        return None
    box = last_box(text)
    if box is not None:
        return read_marked_letter(box)
    last = None
    for match in CHOICE_DECLARATION.finditer(text):
        last = match
    if last is not None and denies_label(text, last.start()):
        return None
    if last is not None:
        return read_marked_letter(text[last.end() : last.end() + LONGEST])
    return _read_unmarked(text)


def read_marked_letter(part: str) -> str | None:
    """The letter that a box or what follows "Answer:" holds."""
    part = plain_text(part[:LONGEST]).strip(" \n*_:")
    for _ in range(3):
        shorter = ADVERB.sub("", part, count=1) if ADVERB.match(part) else part
        part = shorter.strip(" \n*_:")
    line, _, rest = part.partition("\n")
    for pattern in (ALONE, SMALL_ALONE):
        alone = pattern.fullmatch(line.strip())
        if alone is not None:
            letter = alone[1].upper()
            other = OTHER_LINE.match(rest.strip())
            is_another = other is not None and other[1] != letter
            if is_another or RETRACTION.search(rest):
                return None
            return letter
    for pattern in (LABEL, REASON):
        match = pattern.match(line)
        if match is not None:
            group = match.lastindex or 1
            letter = match[group].upper()
            after_letter = line[match.end(group) :]
            rest_of_line = after_letter.lstrip(")].: ") if pattern is LABEL else after_letter
            if ANOTHER.match(after_letter.lstrip(")]")):
                return None
            if _is_letter(rest_of_line):
                return None
            if RETRACTION.search(after_letter):
                return None
            return letter
    return None


def _is_letter(text: str) -> bool:
    """Whether a text is a second letter, as in "A, B" and "(A) (B)"."""
    return re.match(r"[(\[]?[A-J](?:[)\].,;]|\s?$)", text.lstrip(" ,;:")) is not None


def _read_unmarked(text: str) -> str | None:
    """The one letter that a line of its own, a bracket or the last word marks."""
    bracketed = set(BRACKETED.findall(text))
    if len(bracketed) > 1 or _is_denied(text):
        return None
    labels = set(LINE_LABEL.findall(text))
    if len(labels) > 1:
        # A copy of the choices is no answer.
        return None
    named = bracketed | set(OPTION.findall(text))
    if len(named) > 1:
        return None
    if len(text) <= LONGEST:
        letter = _line_letter(text)
        if letter is not None:
            return letter
    tail = text.rstrip()[-LONGEST:]
    _, _, last_line = tail.rpartition("\n")
    candidates = {_line_letter(last_line) or ""} | bracketed
    last_word = LAST_WORD.search(tail)
    if last_word is not None:
        candidates.add(last_word[1])
    candidates.discard("")
    if len(candidates) != 1:
        return None
    return candidates.pop()


def _is_denied(text: str) -> bool:
    """Whether the last line, or a line with a letter in brackets, says what is not the answer."""
    lines = text.rstrip().splitlines()
    if lines and DENIAL.search(lines[-1][-LONGEST:]):
        return True
    bracketed = [line[-LONGEST:] for line in lines if BRACKETED.search(line)]
    return any(DENIAL.search(line) for line in bracketed)


def _line_letter(line: str) -> str | None:
    """The letter that a line consists of, or begins with before a bracket or point."""
    plain = plain_text(line).strip(" \n*_")
    if "\n" in plain:
        return None
    option = OPTION_LINE.match(plain)
    if option is not None:
        return read_marked_letter(plain[option.end() :])
    for pattern in (ALONE, SMALL_ALONE):
        alone = pattern.fullmatch(plain)
        if alone is not None:
            return alone[1].upper()
    label = LABEL.match(plain)
    if label is None:
        return None
    if re.search(r"(?:^|\s)[(\[]?[A-J][).\]]\s", plain[label.end() :]):
        return None
    return label[label.lastindex or 1].upper()
