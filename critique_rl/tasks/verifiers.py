"""Judge an answer by a rule: (completion, the dataset's row) -> Verdict.

    last_number            a number: in \\boxed{}, else after "####" or "Answer:", else the last one
    hash_line              the lab's format: the last line is exactly "#<integer>"
    hash_confidence        hash_line, then a last line that is exactly "@<percent>"
    tagged_answer          RLCR's format: answer, analysis and confidence in tags.
    choice                 the letter of a multiple choice, A to J.
    boxed_answer           TruthRL's checks of the first \\boxed{...}, as in training.
    boxed_answer_evaluated the same as in TruthRL's evaluation

Rules are linear in the length of the text, so that no text can raise or stall. A text that declares
an answer which is no number ("Answer: unknown") is unreadable; the numbers before it are not
searched. Left out: symbolic mathematics, whose libraries hang on hostile input and run in a
killable process (`isolated_verifiers`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from critique_rl.config.checks import suggest
from critique_rl.tasks.answer_text import (
    BOXED,
    LETTER_ALONE,
    LONGEST,
    gold_answer,
    number_value,
    read_letter,
    read_number,
)
from critique_rl.tasks.row import Row
from critique_rl.types import Outcome, Verdict, Verifier

HASH_LINE = re.compile(r"#(-?\d{1,100})", re.ASCII)
PERCENT_LINE = re.compile(r"@(\d{1,3})", re.ASCII)
CONFIDENCE = re.compile(r"\d{1,3}(?:\.\d{1,20})?|\.\d{1,20}")
TAGS = (
    "</think>",
    "<answer>",
    "</answer>",
    "<analysis>",
    "</analysis>",
    "<confidence>",
    "</confidence>",
)
"""Tags of RLCR's format, in order."""
ARTICLES = ("a", "an", "the")
Judge = Callable[[str, Row], bool]
"""(boxed answer, row) -> whether an answer without an exact match is right."""


def last_number(text: str, row: Row) -> Verdict:
    """Compare the number that the text declares, or ends in, with row["answer"].

    Values are compared exactly: 0.5, .50 and 1/2 are equal, as are 1,000 and 1e3.
    """
    gold_number = read_number(gold_answer(row))
    gold = number_value(gold_number)
    if gold is None:
        return _unscored(row, "number")
    answer = read_number(text)
    value = number_value(answer)
    if answer is None or value is None:
        return Verdict("unreadable", answer, "no number")
    is_right = value == gold
    return Verdict(_outcome(is_right), answer)


def hash_line(text: str, row: Row) -> Verdict:
    """Compare the integer of a last line that is exactly "#<integer>" with row["answer"].

    Any other last line is unreadable.
    """
    gold = HASH_LINE.fullmatch(f"#{gold_answer(row)}")
    if gold is None:
        return _unscored(row, "integer")
    _, _, last_line = text.rpartition("\n")
    answer = HASH_LINE.fullmatch(last_line)
    if answer is None:
        return Verdict("unreadable", reason='last line is not "#<integer>"')
    is_right = int(answer[1]) == int(gold[1])
    return Verdict(_outcome(is_right), answer[1])


def hash_confidence(text: str, row: Row) -> Verdict:
    """`hash_line` on the last line but one, and a last line that is exactly "@" and 0 to 100.

    Anything else is unreadable. The verdict's confidence is the percentage as a share.
    """
    body, _, last_line = text.rpartition("\n")
    verdict = hash_line(body, row)
    if verdict.outcome == "unscored":
        return verdict
    percent = PERCENT_LINE.fullmatch(last_line)
    share = None
    if percent is not None:
        share = int(percent[1]) / 100
    if share is None or share > 1 or verdict.outcome == "unreadable":
        return Verdict("unreadable", reason='last two lines are not "#<integer>" and "@<percent>"')
    return replace(verdict, confidence=share)


def choice(text: str, row: Row) -> Verdict:
    """Compare the letter that a text declares with row["answer"]: in its last \\boxed{}, else after
    its last "answer is" or "Answer:", else all of it.

    Two different letters in an undeclared answer are unreadable, and so are "A" and "I" as words of
    a sentence.
    """
    gold = LETTER_ALONE.fullmatch(gold_answer(row))
    if gold is None:
        return _unscored(row, "letter from A to J")
    letter = read_letter(text)
    if letter is None:
        return Verdict("unreadable", reason="no letter")
    is_right = letter == gold[1]
    return Verdict(_outcome(is_right), letter)


def tagged_answer(text: str, row: Row) -> Verdict:
    """RLCR's format "tabc" (arXiv 2507.16806): thinking, then `TAGS` with nothing between them, and
    a confidence from 0 to 1 at the end.

    The answer is read as `last_number` reads it.
    """
    # A gold answer that is no number is the row's fault, whatever the text looks like.
    without_text = last_number("", row)
    if without_text.outcome == "unscored":
        return without_text
    parts = []
    rest = text
    for tag in TAGS:
        part, separator, rest = rest.partition(tag)
        if not separator:
            return Verdict("unreadable", reason=f"no {tag}")
        parts.append(part.strip())
    _, before_answer, answer, before_analysis, _, before_confidence, stated = parts
    other_text = before_answer + before_analysis + before_confidence + rest.strip()
    confidence = None
    if CONFIDENCE.fullmatch(stated):
        confidence = number_value(stated)
    if other_text or confidence is None or confidence > 1:
        return Verdict("unreadable", reason="no confidence from 0 to 1 at the end")
    verdict = last_number(answer, row)
    return replace(verdict, confidence=float(confidence))


def boxed_answer(text: str, row: Row, judge: Judge | None = None) -> Verdict:
    """TruthRL's order of checks (arXiv 2509.25760, its code): no box, "I don't know", "invalid
    question", exact match, then `judge` if given.

    "Invalid question" comes before the match, so that in training a false premise is never
    rewarded, as published. Answers are compared in lower case without punctuation and articles.
    """
    return _judge_box(text, row, judge, match_first=False)


def boxed_answer_evaluated(text: str, row: Row, judge: Judge | None = None) -> Verdict:
    """`boxed_answer` as TruthRL evaluates: the exact match comes before "invalid question"."""
    return _judge_box(text, row, judge, match_first=True)


def _judge_box(text: str, row: Row, judge: Judge | None, match_first: bool) -> Verdict:
    if row.get("answer") in (None, ""):
        return Verdict("unscored", reason='no gold answer: row["answer"] is missing')
    # Not a regular expression, which would search on from each of a million "\\boxed{" without an
    # end.
    _, box, rest = text.partition(BOXED)
    searched = rest[: 2 * LONGEST]
    answer, brace, _ = searched.partition("}")
    if not (box and brace):
        return Verdict("unreadable", reason="no \\boxed{}")
    words = _normalise(answer)
    gold_words = _normalise(gold_answer(row))
    if "i dont know" in words:
        return Verdict("abstained", answer)
    is_match = bool(gold_words) and words == gold_words
    if "invalid question" in words and not (match_first and is_match):
        return Verdict("wrong", answer, "invalid question")
    if not is_match and judge is not None:
        is_match = judge(answer, row)
    return Verdict(_outcome(is_match), answer)


def _outcome(is_right: bool) -> Outcome:
    return "right" if is_right else "wrong"


def _unscored(row: Row, kind: str) -> Verdict:
    """The verdict for a row whose gold answer is not of the kind that the rule compares."""
    gold = gold_answer(row)[:40]
    return Verdict("unscored", reason=f'no gold answer: row["answer"] is no {kind} but {gold!r}')


def _normalise(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces."""
    plain = re.sub(r"[^\w\s]", "", text.lower())
    words = plain.split()
    kept = [word for word in words if word not in ARTICLES]
    return " ".join(kept)


VERIFIERS: dict[str, Verifier] = {
    "last_number": last_number,
    "hash_line": hash_line,
    "hash_confidence": hash_confidence,
    "tagged_answer": tagged_answer,
    "choice": choice,
    "boxed_answer": boxed_answer,
    "boxed_answer_evaluated": boxed_answer_evaluated,
}


def find_verifier(name: str) -> Verifier:
    """Return a rule by its name.

    Raises:
        ValueError: For an unknown name, with the nearest known one.
    """
    if name not in VERIFIERS:
        advice = suggest(name, VERIFIERS)
        raise ValueError(f"no verifier {name!r}; {advice}")
    return VERIFIERS[name]
