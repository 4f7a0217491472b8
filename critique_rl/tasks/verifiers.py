"""Judge an answer by a rule: (completion, the dataset's row) -> Verdict.

    last_number            a number: in \\boxed{}, else after "####" or "Answer:", else the last one
                           of a form that is known
    hash_line              the lab's format: the last line is exactly "#<integer>"
    hash_confidence        hash_line, then a last line that is exactly "@<percent>"
    tagged_answer          RLCR's format: answer, analysis and confidence in tags.
    choice                 the letter of a multiple choice, A to J, where it is marked
    boxed_answer           a short text in the last \\boxed{...}, with TruthRL's checks in training
    boxed_answer_evaluated the same as in TruthRL's evaluation

Unreadable beats guessed: a form that no rule knows is unreadable, and so is an answer of which two
readings are possible and one is right. A text that declares an answer which is no number
("Answer: unknown") is unreadable; the numbers before it are not searched. How answers are read is
told in `answers`. Rules are linear in the length of the text, so that no text can raise or stall.
Left out: symbolic mathematics, whose libraries hang on hostile input and run in a killable process
(`isolated_verifiers`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar

from critique_rl.config.checks import suggest
from critique_rl.prompts import LONGEST_TEXT, TOO_LONG
from critique_rl.tasks.answer_text import NO_GOLD, gold_answer, number_value
from critique_rl.tasks.answers.letters import LETTER_ALONE, read_letter
from critique_rl.tasks.answers.marked import last_box, marked_part
from critique_rl.tasks.answers.numbers import (
    Quantity,
    compare_quantities,
    read_last_quantity,
    read_quantity,
)
from critique_rl.tasks.answers.phrases import compare_phrases
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
Rule = TypeVar("Rule", bound=Callable[..., Verdict])
"""A rule: (text, row, ...) -> verdict."""
Judge = Callable[[str, Row], bool]
"""(boxed answer, row) -> whether an answer without an exact match is right."""


def bounded(rule: Rule) -> Rule:
    """The rule for texts of at most `LONGEST_TEXT` characters; longer ones are unreadable.

    They are not unscored: a policy could else escape the rule by writing on and on.
    """

    @wraps(rule)
    def judge(text: str, row: Row, *others: Any, **settings: Any) -> Verdict:
        if len(text) <= LONGEST_TEXT:
            return rule(text, row, *others, **settings)
        # A gold answer that the rule cannot read is the row's fault, whatever the text looks like.
        without_text = rule("", row, *others, **settings)
        if without_text.outcome == "unscored":
            return without_text
        return Verdict("unreadable", reason=TOO_LONG)

    bounded_rule: Any = judge
    return bounded_rule


@bounded
def last_number(text: str, row: Row) -> Verdict:
    """Compare the number that the text declares, or ends in, with row["answer"].

    Values are compared exactly: 0.5, .50, 50% and 1/2 are equal, as are 1,000 and 1e3. A unit may
    be left out; another one than the gold answer's is unreadable.
    """
    gold = _read_gold_number(row)
    if gold is None:
        return _unscored(row, "number")
    answer = _read_answer_number(text)
    if answer is None:
        return Verdict("unreadable", reason="no number of a known form")
    outcome, reason = compare_quantities(gold, answer)
    return Verdict(outcome, answer.text, reason)


def _read_gold_number(row: Row) -> Quantity | None:
    gold = gold_answer(row)
    part = marked_part(gold)
    return read_quantity(gold if part is None else part)


def _read_answer_number(text: str) -> Quantity | None:
    """The number in the marked part of a text, else the last one; None where it is not known."""
    part = marked_part(text)
    if part is not None:
        return read_quantity(part)
    return read_last_quantity(text)


@bounded
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


@bounded
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


@bounded
def choice(text: str, row: Row) -> Verdict:
    """Compare the letter that a text declares with row["answer"]: in its last \\boxed{}, else after
    its last "answer is" or "Answer:", else the one that is marked.

    Two different letters are unreadable, and so are "A" and "I" as words of a sentence.
    """
    gold = LETTER_ALONE.fullmatch(gold_answer(row))
    if gold is None:
        return _unscored(row, "letter from A to J")
    letter = read_letter(text)
    if letter is None:
        return Verdict("unreadable", reason="no marked letter, or several")
    is_right = letter == gold[1]
    return Verdict(_outcome(is_right), letter)


@bounded
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


@bounded
def boxed_answer(text: str, row: Row, judge: Judge | None = None) -> Verdict:
    """TruthRL's order of checks (arXiv 2509.25760, its code): no box, "I don't know", "invalid
    question", match, then `judge` if given.

    "Invalid question" comes before the match, so that in training a false premise is never
    rewarded, as published. Answers match by `answers.phrases`; the last box counts.
    """
    return _judge_box(text, row, judge, match_first=False)


@bounded
def boxed_answer_evaluated(text: str, row: Row, judge: Judge | None = None) -> Verdict:
    """`boxed_answer` as TruthRL evaluates: the match comes before "invalid question"."""
    return _judge_box(text, row, judge, match_first=True)


def _judge_box(text: str, row: Row, judge: Judge | None, match_first: bool) -> Verdict:
    if row.get("answer") is None or not gold_answer(row):
        return Verdict("unscored", reason=NO_GOLD)
    answer = last_box(text)
    if not (answer and answer.strip()):
        return Verdict("unreadable", reason="no \\boxed{}, or an empty one")
    words = _normalise(answer)
    if "i dont know" in words:
        return Verdict("abstained", answer)
    outcome, reason = compare_phrases(gold_answer(row), answer)
    if "invalid question" in words and not (match_first and outcome == "right"):
        return Verdict("wrong", answer, "invalid question")
    if outcome != "right" and judge is not None:
        is_match = judge(answer, row)
        outcome, reason = _outcome(is_match), ""
    return Verdict(outcome, answer, reason)


def _outcome(is_right: bool) -> Outcome:
    if is_right:
        return "right"
    return "wrong"


def _unscored(row: Row, kind: str) -> Verdict:
    """The verdict for a row whose gold answer is not of the kind that the rule compares."""
    gold = gold_answer(row)[:40]
    if not gold.strip():
        return Verdict("unscored", reason=NO_GOLD)
    return Verdict("unscored", reason=f'no gold answer: row["answer"] is no {kind} but {gold!r}')


def _normalise(text: str) -> str:
    """Lower case, no punctuation, single spaces."""
    plain = re.sub(r"[^\w\s]", "", text.lower())
    return " ".join(plain.split())


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
