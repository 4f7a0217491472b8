"""Does a critique give the answer away? Each piece that may be an answer goes to the verifier.

Pieces are boxed and LaTeX formulas, phrases after "the answer is", letters of a choice, Python
functions, and numbers other than those of steps and lines. Counts of leaks are a lower bound. Left
out are numbers in words ("forty-two"), fractions that are one character, and paraphrases ("one more
than a dozen").
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

from critique_rl.prompts import LONGEST_TEXT
from critique_rl.tasks.answer_text import NUMBER
from critique_rl.types import Attempt, Critique

IsAnswer = Callable[[str, Mapping[str, Any]], bool | None]
"""(piece of text, row of the dataset) -> whether the task's verifier accepts the piece as the right
answer; False for a piece that it cannot read, None for one that it did not judge in time.
"""
OnLeak = Literal["keep", "redact", "drop"]
ON_LEAK = ("keep", "redact", "drop")
Span = tuple[int, int]
"""(start, end) in characters."""

# A verifier may take milliseconds per piece.
MAX_PIECES = 200
"""Different pieces of one critique that are verified, the likeliest first."""
MAX_SPANS = 10_000
"""Places of one kind that are looked at, the last ones: a text of a million numbers holds none."""
# Some pieces hang a verifier until its own deadline.
MAX_SECONDS = 5.0
"""Seconds for all pieces of one critique."""
UNREAD = "leaks_unread"
"""The note, and the reason, of critiques whose pieces were not all verified."""

LABEL = re.compile(
    r"(?i:\b(?:steps?|lines?|rows?|part|equation|paragraph|attempts?|solutions?)\s*#?)$"
)
"""The word before a number that counts steps or lines."""
LABEL_WINDOW = 16
DECLARED = re.compile(
    r"(?i)(?:\banswer(?: is| was| should be| must be| to be|:| =)|####|\\boxed\{)\s*:?\s*"
)
"""The words before a number that is called the answer."""
DECLARED_WINDOW = 24
# Repetitions are bounded: model text must not make a match take long.
INNER = r"(?:[^{}\n]|\{(?:[^{}\n]|\{[^{}\n]{0,200}\}){0,200}\}){1,200}"
"""The inside of braces, which may hold braces two levels deep."""
BRACED = rf"\{{{INNER}\}}"
FORMULA = re.compile(
    rf"\\boxed\{{({INNER})\}}"
    r"|\$([^$\n]{1,200})\$"
    r"|\\\(([^\n]{1,200}?)\\\)"
    r"|\\\[([^\n]{1,200}?)\\\]"
    rf"|(\\[dt]?frac\s?(?:{BRACED}|\d)\s?(?:{BRACED}|\d))"
)
PHRASE = re.compile(r"(?i)\banswer(?: is| was| should be| must be|:)\s*([^\n.;!?]{1,80})")
CHOICE = re.compile(r"\(([A-J])\)|(?i:option|choice|answer is|answer:) ([A-J])\b")
PROGRAM = re.compile(r"\b(def \w{1,80}\([^\n]{0,300}(?:\n[ \t][^\n]{0,300}){0,200})")
"""Each alternative of these four has one group: the piece."""

FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
"""Characters of full width -> the ASCII characters that they stand for."""
EMPHASIS = re.compile(r"(?<![\w})])_(?=[-+\d])|(?<=\d)_(?!\w)")
"""Underscores of Markdown around a number. One inside a word (x_42) is part of a name."""


def leak_spans(text: str, attempt: Attempt, is_answer: IsAnswer) -> tuple[list[Span], bool]:
    """Find the pieces of a text that are the right answer.

    Args:
        text: a critique.
        attempt: the attempt that it is about.
        is_answer: the task's verifier.

    Returns:
        The spans of those pieces, in order, and whether every piece was verified.
    """
    if len(text) > LONGEST_TEXT:
        return [], False
    # Both replacements are character for character, so spans hold in the original text.
    text = EMPHASIS.sub(" ", text.translate(FULL_WIDTH))
    stop = time.monotonic() + MAX_SECONDS
    verdicts: dict[str, bool] = {}
    spans: set[Span] = set()
    candidates, complete = _candidate_spans(text, attempt.question)
    for start, end in candidates:
        piece = text[start:end].strip(" *\"'`")  # quotes and emphasis
        if not piece:
            continue
        if piece not in verdicts:
            if len(verdicts) >= MAX_PIECES or time.monotonic() >= stop:
                complete = False
                continue
            verdict = is_answer(piece, attempt.row)
            complete = complete and verdict is not None
            verdicts[piece] = bool(verdict)
        if verdicts[piece]:
            spans.add((start, end))
    return sorted(spans), complete


def _candidate_spans(text: str, question: str) -> tuple[list[Span], bool]:
    """Spans of pieces that may be the answer, the likeliest first, and whether these are all."""
    # Critics quote questions, so a number of the question counts only if it is called the answer.
    quoted = {match[0] for match in _last_matches(NUMBER, question[:LONGEST_TEXT])}
    declared: list[Span] = []
    others: list[Span] = []
    numbers = _last_matches(NUMBER, text)
    complete = len(numbers) < MAX_SPANS
    for match in numbers:
        start = match.start()
        if DECLARED.search(text[max(0, start - DECLARED_WINDOW) : start]):
            declared.append(match.span())
            continue
        is_label = LABEL.search(text[max(0, start - LABEL_WINDOW) : start])
        if match[0] not in quoted and not is_label:
            others.append(match.span())
    marked: list[Span] = []
    for pattern in (FORMULA, PHRASE, CHOICE, PROGRAM):
        matches = _last_matches(pattern, text)
        complete = complete and len(matches) < MAX_SPANS
        for match in matches:
            marked.append(match.span(match.lastindex or 0))
    # The other numbers from the last on: answers stand at the end.
    return marked + declared + others[::-1], complete


def _last_matches(pattern: re.Pattern[str], text: str) -> Collection[re.Match[str]]:
    return deque(pattern.finditer(text), maxlen=MAX_SPANS)


def leaks_answer(text: str, attempt: Attempt, is_answer: IsAnswer) -> bool:
    """Whether a piece of the text is the right answer."""
    spans, _ = leak_spans(text, attempt, is_answer)
    return bool(spans)


def handle_leak(
    critique: Critique, attempt: Attempt, is_answer: IsAnswer, on_leak: OnLeak
) -> Critique:
    """Note whether a usable critique leaks, and keep, redact or drop one that does.

    Args:
        critique: any critique; one without text comes back unchanged.
        attempt: the attempt that it is about.
        is_answer: the task's verifier.
        on_leak: what happens to a leaking critique.

    Returns:
        The critique with `leaked` set, and the notes "leaks_unread" (not every piece was verified,
        so it may leak) and "redacted". A dropped one is skipped with reason "leak". Unless leaks
        are kept, one that was not read in full is skipped with reason "leaks_unread".
    """
    if critique.status != "ok":
        return critique
    spans, complete = leak_spans(critique.text, attempt, is_answer)
    if not complete:
        critique = replace(critique, notes=(*critique.notes, UNREAD))
    if on_leak == "keep":
        return replace(critique, leaked=bool(spans))
    dropped = replace(critique, text="", status="skipped", reason="leak", leaked=bool(spans))
    unread = replace(dropped, reason=UNREAD)
    if spans and on_leak == "drop":
        return dropped
    if not complete:
        return unread
    if not spans:
        return critique
    text = redact(critique.text, spans)
    # Matches of a pattern do not overlap, so the redacted text may hold a new one: it is dropped.
    new_spans, complete = leak_spans(text, attempt, is_answer)
    if new_spans:
        return dropped
    if not complete:
        return unread
    return replace(critique, text=text, leaked=True, notes=(*critique.notes, "redacted"))


def redact(text: str, spans: list[Span]) -> str:
    """The text with "[...]" in place of each span. Spans are sorted, and may overlap."""
    parts = []
    position = 0
    for start, end in spans:
        if end <= position:
            continue
        # A span that begins inside the one before shares its mark.
        if start >= position:
            parts += [text[position:start], "[...]"]
        position = end
    parts.append(text[position:])
    return "".join(parts)
