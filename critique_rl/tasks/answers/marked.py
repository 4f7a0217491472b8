r"""Where a completion's answer stands: in \boxed{}, after "Answer:", or nowhere in particular.

Searches are linear in the length of the text, so that no text can raise or stall.
"""

from __future__ import annotations

import re
from collections import deque

from critique_rl.prompts import LONGEST_TEXT

LONGEST = 4000
"""Characters of the longest marked answer."""
BOXED = "\\boxed{"
BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s{0,3}")
BARE_BOX = re.compile(r"[-+]?[^\s${}\\]{1,99}")
BETWEEN_BOXES = re.compile(r"(?:[\s$,;&]|\\[()\[\]]|\\text\{|\\quad|and|or|\})*")
DECLARATION = re.compile(
    r"####|(?i:answer[*_]{0,3}\s{0,3}[:=\uff1a]"
    r"|answer\s{1,3}(?:is|was|would be|should be|must be|will be|equals)(?!\w)"
    r"(?!\s(?:correct|right|verified|reasonable|found|obtained|clear|consistent|given by|in the))"
    r"(?:\s{0,3}:)?)"
)
DENIED_LABEL = re.compile(
    r"(?i)(?<!\w)(?:wrong|incorrect|false|worst|bad|impossible"
    r"|not (?:the|an)|n['\u2019]t (?:the|an))"
    r"\s{1,3}(?:final\s{1,3}|correct\s{1,3}|right\s{1,3}|possible\s{1,3})?$"
)
OPENING = re.compile(r"\A(?:[\s*_:\uff1a]|(?:\\\[|\$\$)\s*\n){0,99}")
LAST_MARK = re.compile(r"(\*{1,3}|_{1,3}|)\Z")
OPEN_MARK = re.compile(r"(?<![\w*_])(\*{1,3}|_{1,3})(?![\s*_])[^*_\n]{0,40}\Z")
RELATIVE = re.compile(
    r"(?i)\A\s?(?:therefore|thus|then|hence|simply|indeed|clearly|now|just|that)\s"
)


def boxes(text: str, longest: int | None = LONGEST) -> list[tuple[int, int, str]]:
    r"""Every \boxed{...} and \fbox{...} of a text.

    Args:
        text: A completion.
        longest: Characters of a box that are searched for its end; None: all.

    Returns:
        (start, end, content) of each. The content of one that is never closed is "": the text was
        cut, so nobody knows its end. A box in a box is part of the outer one. None of a text of
        over `LONGEST_TEXT` characters.
    """
    if len(text) > LONGEST_TEXT:
        return []
    # The last ones only: a text of a million boxes is no answer.
    marks = deque((match.span() for match in BOX.finditer(text)), maxlen=50)
    found_boxes = []
    position = 0
    for start, content_start in marks:
        if start < position:
            continue
        end, content = _box_content(text, content_start, longest)
        position = end
        found_boxes.append((start, end, content))
    return found_boxes


def _box_content(text: str, start: int, longest: int | None) -> tuple[int, str]:
    """(end, content) of a box whose content starts at a place."""
    if not text.startswith("{", start):
        match = BARE_BOX.match(text, start)
        if match is None:
            return start, ""
        return match.end(), match[0].rstrip(".,;:")
    depth = 0
    escaped = False
    stop = len(text)
    if longest is not None:
        stop = min(stop, start + longest)
    for place in range(start, stop):
        character = text[place]
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return place + 1, text[start + 1 : place]
    # A box without its brace may be longer than the text, so nobody knows its content.
    return (stop if stop == len(text) else start + 1), ""


def last_box(text: str, longest: int | None = LONGEST) -> str | None:
    r"""Content of the last \boxed{...} of a text.

    Args:
        text: A completion.
        longest: Characters of a box that are searched for its end; None: all.

    Returns:
        None where there is no box, "" for an empty one and for one that is never closed. Boxes that
        only "and", "or" or a comma parts are one list: "3, 5".
    """
    all_boxes = boxes(text, longest)
    if not all_boxes:
        return None
    _, _, last = all_boxes[-1]
    contents = [last]
    for before, after in zip(all_boxes[-2::-1], all_boxes[:0:-1], strict=True):
        between = text[before[1] : after[0]]
        if len(between) > 40 or "\n" in between or not BETWEEN_BOXES.fullmatch(between):
            break
        contents.append(before[2])
    if len(set(contents)) == 1 or not last:
        return last
    return ", ".join(contents[::-1])


def denies_label(text: str, start: int) -> bool:
    """Whether the words before a label turn it around, as in "the wrong answer is"."""
    before = text[max(0, start - 40) : start]
    return DENIED_LABEL.search(before) is not None


def declared_part(text: str) -> str | None:
    r"""What stands after the last "####", "Answer:" or "answer is", to the end of its line.

    Returns:
        None where nothing is declared, and for a text of over `LONGEST_TEXT` characters.
    """
    if len(text) > LONGEST_TEXT:
        return None
    last = None
    for match in DECLARATION.finditer(text):
        last = match
    if last is None:
        return None
    if denies_label(text, last.start()):
        return ""
    mark = _open_emphasis(text[max(0, last.start() - 60) : last.start()])
    # An answer below its label counts too, so that "Answer:\n5" is read.
    rest = text[last.end() : last.end() + LONGEST]
    opening = OPENING.match(rest)
    if opening is not None:
        mark = LAST_MARK.findall(opening[0])[0] or mark
    rest = OPENING.sub("", rest)
    rest = RELATIVE.sub("", rest, count=1)
    line, _, _ = rest.partition("\n")
    # Emphasis that opens before the answer closes after it.
    if mark:
        line = re.sub(rf"{re.escape(mark)}(?!\w)", "", line, count=1)
    line = line.rstrip()
    closing = LAST_MARK.findall(line)[0]
    # "5**" closes what opened before the declaration; "5 **apples**" does not.
    if closing and line.count(closing) == 1:
        line = line.removesuffix(closing).rstrip()
    return line


def _open_emphasis(before: str) -> str:
    """The stars or lines that open before a declaration: "**" of "**Answer: 5** apples"."""
    match = OPEN_MARK.search(before)
    if match is None:
        return ""
    return match[1]


def marked_part(text: str) -> str | None:
    """The box, else the declared part; None where a text marks no answer."""
    box = last_box(text)
    if box is not None:
        return box
    return declared_part(text)
