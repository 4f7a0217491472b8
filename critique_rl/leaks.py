"""Does a critique give the answer away? Every piece of it that could be an answer is put to the task's own verifier.

Pieces are boxed and LaTeX formulas, numbers but for those of steps and lines, letters of a choice, and what stands after "the answer is". A number of the
question itself counts only where it is declared to be the answer: critics quote questions. What the verifier cannot judge is no leak. A paraphrase
("one more than a dozen") is not seen, so counts are a lower bound.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

from critique_rl.types import Attempt, Critique
from critique_rl.verifier import NUMBER

IsAnswer = Callable[[str, Mapping[str, Any]], bool]
"""(a piece of text, the dataset's row) -> whether the task's verifier would take the piece as the right answer."""
OnLeak = Literal["keep", "redact", "drop"]
ON_LEAK = ("keep", "redact", "drop")

MOST = 60
"""Pieces of one critique that are looked at: a verifier may take milliseconds for each."""
SECONDS = 5.0
"""For all pieces of one critique: some may hang the verifier until its deadline. What is not looked at then is no leak."""
LABEL = r"(?i:\b(?:steps?|lines?|rows?|part|equation|paragraph|attempts?|solutions?)\s*#?)$"
DECLARED = re.compile(r"(?i)(?:\banswer(?: is| was| should be| must be| to be|:| =)|####|\\boxed\{)\s*:?\s*")
FORMULA = re.compile(r"\\boxed\{([^{}]{1,200})\}|\$([^$\n]{1,200})\$|\\\(([^\n]{1,200}?)\\\)")
CHOICE = re.compile(r"\(([A-J])\)|(?i:option|choice|answer is|answer:) ([A-J])\b")
PHRASE = re.compile(r"(?i)\banswer(?: is| was| should be| must be|:)\s*([^\n.;!?]{1,80})")


def leak_spans(text: str, attempt: Attempt, is_answer: IsAnswer) -> list[tuple[int, int]]:
    """(start, end) of the pieces that are the right answer, in order."""
    quoted = {match[0] for match in NUMBER.finditer(attempt.question)}
    pieces = []
    for match in NUMBER.finditer(text):
        declared = DECLARED.search(text[max(0, match.start() - 24) : match.start()]) is not None
        labels = re.search(LABEL, text[max(0, match.start() - 16) : match.start()]) is not None
        if declared or not (labels or match[0] in quoted):
            pieces.append(match.span())
    for pattern in (FORMULA, CHOICE, PHRASE):
        pieces += [match.span(match.lastindex) for match in pattern.finditer(text)]
    found: dict[str, bool] = {}
    stop = time.monotonic() + SECONDS
    for start, end in pieces[:MOST]:
        piece = text[start:end].strip(" *\"'`")
        if piece and piece not in found and time.monotonic() < stop:
            found[piece] = is_answer(piece, attempt.row)
    return sorted({(start, end) for start, end in pieces[:MOST] if found.get(text[start:end].strip(" *\"'`"))})


def leaks(text: str, attempt: Attempt, is_answer: IsAnswer) -> bool:
    """True where a piece of the text is the right answer."""
    return bool(leak_spans(text, attempt, is_answer))


def guarded(critique: Critique, attempt: Attempt, is_answer: IsAnswer, on_leak: OnLeak) -> Critique:
    """A usable critique with its leak noted, and kept, redacted or dropped."""
    spans = leak_spans(critique.text, attempt, is_answer) if critique.status == "ok" else []
    if not spans:
        return critique
    if on_leak == "keep":
        return replace(critique, leaked=True)
    text = redacted(critique.text, spans)
    if on_leak == "drop" or leaks(text, attempt, is_answer):
        return replace(critique, text="", status="skipped", reason="leak", leaked=True)
    return replace(critique, text=text, leaked=True, notes=(*critique.notes, "redacted"))


def redacted(text: str, spans: list[tuple[int, int]]) -> str:
    """Text with "[...]" in place of each span; spans may overlap."""
    out, at = [], 0
    for start, end in spans:
        if end > at:
            out += [text[at : max(start, at)], "[...]" if start >= at else ""]
            at = end
    return "".join(out) + text[at:]
