"""Does a critique give the answer away? Every piece of it that could be an answer is put to the
task's own verifier.

Pieces are boxed and LaTeX formulas, numbers but for those of steps and lines, letters of a choice,
and what stands after "the answer is". A number of the question itself counts only where it is
declared to be the answer: critics quote questions. What the verifier cannot judge is no leak. A
number in words ("forty-two"), as one character of its own (a half as one sign) or in a paraphrase
("one more than a dozen") is not seen, so counts are a lower bound.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

from critique_rl.tasks.answer_text import NUMBER
from critique_rl.types import Attempt, Critique

IsAnswer = Callable[[str, Mapping[str, Any]], bool]
"""(a piece of text, the dataset's row) -> whether the task's verifier would take the piece as the
right answer.
"""
OnLeak = Literal["keep", "redact", "drop"]
ON_LEAK = ("keep", "redact", "drop")

MOST = 200
"""Different pieces of one critique that are looked at, the likeliest first: a verifier may take
milliseconds for each.
"""
SECONDS = 5.0
"""For all pieces of one critique: some may hang the verifier until its deadline. What is not looked
at then is no leak, and noted as `leaks_unread`.
"""
LABEL = r"(?i:\b(?:steps?|lines?|rows?|part|equation|paragraph|attempts?|solutions?)\s*#?)$"
DECLARED = re.compile(
    r"(?i)(?:\banswer(?: is| was| should be| must be| to be|:| =)|####|\\boxed\{)\s*:?\s*"
)
INNER = r"(?:[^{}\n]|\{(?:[^{}\n]|\{[^{}\n]{0,200}\}){0,200}\}){1,200}"
BRACED = rf"\{{{INNER}\}}"
FORMULA = re.compile(
    rf"\\boxed\{{({INNER})\}}|\$([^$\n]{{1,200}})\$|\\\(([^\n]{{1,200}}?)\\\)|\\\[([^\n]{{1,200}}?)\\\]|(\\[dt]?frac\s?(?:{BRACED}|\d)\s?(?:{BRACED}|\d))"
)
CHOICE = re.compile(r"\(([A-J])\)|(?i:option|choice|answer is|answer:) ([A-J])\b")
PHRASE = re.compile(r"(?i)\banswer(?: is| was| should be| must be|:)\s*([^\n.;!?]{1,80})")
PLAIN = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
"""Characters of full width are read as the ones they stand for."""
EMPHASIS = re.compile(r"(?<![\w})])_(?=[-+\d])|(?<=\d)_(?!\w)")


def leak_spans(
    text: str, attempt: Attempt, is_answer: IsAnswer
) -> tuple[list[tuple[int, int]], bool]:
    """((start, end) of the pieces that are the right answer, in order; whether every piece was
    looked at).
    """
    text = EMPHASIS.sub(" ", text.translate(PLAIN))  # letter for letter, so that places stay
    pieces, found = _pieces(text, attempt.question), {}
    stop = time.monotonic() + SECONDS
    for start, end in pieces:
        piece = _bare(text[start:end])
        if piece and piece not in found and len(found) < MOST and time.monotonic() < stop:
            found[piece] = is_answer(piece, attempt.row)
    words = [(span, _bare(text[slice(*span)])) for span in pieces]
    return sorted({span for span, piece in words if found.get(piece)}), all(
        piece in found for _, piece in words if piece
    )


def _bare(piece: str) -> str:
    """Without quotes and emphasis."""
    return piece.strip(" *\"'`")


def _pieces(text: str, question: str) -> list[tuple[int, int]]:
    """Spans of what may be the answer: formulas, phrases and choices, declared numbers, then the
    other numbers from the last on, where answers stand.
    """
    quoted = {match[0] for match in NUMBER.finditer(question)}
    declared, others = [], []
    for match in NUMBER.finditer(text):
        if DECLARED.search(text[max(0, match.start() - 24) : match.start()]):
            declared.append(match.span())
        elif match[0] not in quoted and not re.search(
            LABEL, text[max(0, match.start() - 16) : match.start()]
        ):
            others.append(match.span())
    return (
        [
            match.span(match.lastindex)
            for pattern in (FORMULA, PHRASE, CHOICE)
            for match in pattern.finditer(text)
        ]
        + declared
        + others[::-1]
    )


def leaks_answer(text: str, attempt: Attempt, is_answer: IsAnswer) -> bool:
    """True where a piece of the text is the right answer."""
    return bool(leak_spans(text, attempt, is_answer)[0])


def handle_leak(
    critique: Critique, attempt: Attempt, is_answer: IsAnswer, on_leak: OnLeak
) -> Critique:
    """A usable critique with its leak noted, and kept, redacted or dropped."""
    spans, whole = (
        leak_spans(critique.text, attempt, is_answer) if critique.status == "ok" else ([], True)
    )
    critique = critique if whole else replace(critique, notes=(*critique.notes, "leaks_unread"))
    if not spans:
        return critique
    if on_leak == "keep":
        return replace(critique, leaked=True)
    text = redact(critique.text, spans)
    if on_leak == "drop" or leaks_answer(text, attempt, is_answer):
        return replace(critique, text="", status="skipped", reason="leak", leaked=True)
    return replace(critique, text=text, leaked=True, notes=(*critique.notes, "redacted"))


def redact(text: str, spans: list[tuple[int, int]]) -> str:
    """Text with "[...]" in place of each span; spans may overlap."""
    out, at = [], 0
    for start, end in spans:
        if end > at:
            out += [text[at : max(start, at)], "[...]" if start >= at else ""]
            at = end
    return "".join(out) + text[at:]
