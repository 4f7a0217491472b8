"""Judge an answer: (completion, the dataset's row) -> Verdict.

Rules that are linear in the length of the text, so that no text can raise or stall:

    last_number     \\boxed{...}, else the last "####" or "Answer:" line, else the last number of the text, compared as an exact number
    hash_line       the lab's format: the last line is exactly "#<integer>"
    hash_confidence the same with a confidence: the last two lines are exactly "#<integer>" and "@<percent>"
    tagged_answer   RLCR's format: ...</think><answer>...</answer><analysis>...</analysis><confidence>...</confidence>
    choice          one letter of a multiple choice, A to J
    boxed_answer    TruthRL's order of checks on the first \\boxed{...}: abstained, invalid question, exact match

A text that declares an answer which is no number ("Answer: unknown") is unreadable; the numbers
before it are not searched. Left out: symbolic mathematics, whose libraries hang on hostile input
and run in a killable process (`worker_verifier`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from critique_rl.config.checks import suggest
from critique_rl.types import Verdict, Verifier

LONGEST = 400
"""Characters of the longest number read: far beyond any task, far below where Python refuses to
convert.
"""

# ASCII digits only: int() also reads other scripts' digits, and a policy would find that out. A
# minus after a digit or bracket is a subtraction.
SIGN, DIGITS = r"(?:(?<![\w)])[-+])?", r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\.)\.\d+"
NUMBER = re.compile(
    rf"(?<!\w)(?<!\d\.){SIGN}(?:{DIGITS})(?:[eE][-+]?\d{{1,3}}(?!\d)|/\d+)?", re.ASCII
)
DECLARED = re.compile(r"####|answer\s{0,3}:", re.IGNORECASE)
BOXED = "\\boxed{"
FRACTION = re.compile(r"\\[dt]?frac\{(-?\d{1,100})\}\{(\d{1,100})\}", re.ASCII)
PERCENT_LINE = re.compile(r"@(\d{1,3})", re.ASCII)
HASH_LINE = re.compile(r"#(-?\d{1,100})", re.ASCII)


def last_number(text: str, row: Mapping[str, Any]) -> Verdict:
    """Compare the number that the text declares, or ends in, with row["answer"]. 0.5, .50 and 1/2
    are equal, as are 1,000 and 1e3.
    """
    gold = _value(_read_number(_gold(row)))
    if gold is None:
        return Verdict(
            "unscored", reason=f'no gold answer: row["answer"] is no number but {_gold(row)[:40]!r}'
        )
    answer = _read_number(text)
    value = _value(answer)
    if answer is None or value is None:
        return Verdict("unreadable", answer, "no number")
    return Verdict("right" if value == gold else "wrong", answer)


def hash_line(text: str, row: Mapping[str, Any]) -> Verdict:
    """Compare the integer of a last line that is exactly "#<integer>" with row["answer"]; any other
    last line is unreadable.
    """
    gold = HASH_LINE.fullmatch(f"#{_gold(row)}")
    if gold is None:
        return Verdict(
            "unscored",
            reason=f'no gold answer: row["answer"] is no integer but {_gold(row)[:40]!r}',
        )
    found = HASH_LINE.fullmatch(text[text.rfind("\n") + 1 :])
    if found is None:
        return Verdict("unreadable", reason='last line is not "#<integer>"')
    return Verdict("right" if int(found[1]) == int(gold[1]) else "wrong", found[1])


def hash_confidence(text: str, row: Mapping[str, Any]) -> Verdict:
    """`hash_line` on the last line but one, and a last line that is exactly "@" and 0 to 100;
    anything else is unreadable.
    """
    body, _, last = text.rpartition("\n")
    judged = hash_line(body, row)
    percent = PERCENT_LINE.fullmatch(last)
    if judged.outcome == "unscored":
        return judged
    if percent is None or int(percent[1]) > 100 or judged.outcome == "unreadable":
        return Verdict("unreadable", reason='last two lines are not "#<integer>" and "@<percent>"')
    return replace(judged, confidence=int(percent[1]) / 100)


LETTER_ALONE = re.compile(r"\W{0,9}([A-J])(?:\W{0,9}|[.):,]\s.*)", re.DOTALL)
LETTER_FIRST = re.compile(r"\W{0,9}([B-HJ])(?![\w'])")
LETTER_IN_BRACKETS = re.compile(r"\(([A-J])\)")
LETTER = re.compile(r"(?<![\w'])([B-HJ])(?![\w'])")
SAID = re.compile(r"(?:answer|choice|option)(?: is)?\s{0,3}:?", re.IGNORECASE)


def choice(text: str, row: Mapping[str, Any]) -> Verdict:
    """Compare the letter that a text declares with row["answer"]: in its last \\boxed{}, else after
    its last "answer is" or "Answer:", else all of it.

    Two different letters in an undeclared answer are unreadable, and so are "A" and "I" as words of
    a sentence.
    """
    gold = LETTER_ALONE.fullmatch(_gold(row))
    if gold is None:
        return Verdict(
            "unscored",
            reason=f'no gold answer: row["answer"] is no letter from A to J but {_gold(row)[:40]!r}',
        )
    letter = _letter(text)
    if letter is None:
        return Verdict("unreadable", reason="no letter")
    return Verdict("right" if letter == gold[1] else "wrong", letter)


def _letter(text: str) -> str | None:
    start, part, declared = text.rfind(BOXED), text, True
    if start >= 0:
        part = _braced(text[start + len(BOXED) :][:LONGEST]).replace("\\text{", "").rstrip("} ")
    else:
        last = None
        for match in SAID.finditer(text):
            last = match
        part, declared = (text[last.end() :], True) if last else (text, False)
    part = part[: 2 * LONGEST].strip()
    in_brackets = set(LETTER_IN_BRACKETS.findall(part))
    if declared or len(in_brackets) < 2:
        found = LETTER_ALONE.fullmatch(part) or (LETTER_FIRST.match(part) if declared else None)
        letters = {found[1]} if found else in_brackets or set(LETTER.findall(part))
        return letters.pop() if len(letters) == 1 else None
    return None


TAGS = (
    "</think>",
    "<answer>",
    "</answer>",
    "<analysis>",
    "</analysis>",
    "<confidence>",
    "</confidence>",
)


def tagged_answer(text: str, row: Mapping[str, Any]) -> Verdict:
    """RLCR's format "tabc" (arXiv 2507.16806): once the thinking is over the tags, nothing between
    them, and a confidence from 0 to 1 at the end.

    The answer is read as `last_number` reads it.
    """
    if (judged := last_number("", row)).outcome == "unscored":
        return judged
    parts, rest = [], text
    for tag in TAGS:
        head, found, rest = rest.partition(tag)
        if not found:
            return Verdict("unreadable", reason=f"no {tag}")
        parts.append(head.strip())
    confidence = (
        _value(parts[6]) if re.fullmatch(r"\d{1,3}(?:\.\d{1,20})?|\.\d{1,20}", parts[6]) else None
    )
    if any(parts[i] for i in (1, 3, 5)) or rest.strip() or confidence is None or confidence > 1:
        return Verdict("unreadable", reason="no confidence from 0 to 1 at the end")
    return replace(last_number(parts[2], row), confidence=float(confidence))


def boxed_answer(
    text: str, row: Mapping[str, Any], judge: Callable[[str, Mapping[str, Any]], bool] | None = None
) -> Verdict:
    """TruthRL's order of checks (arXiv 2509.25760, its code): no box, "I don't know", "invalid
    question", exact match, then `judge` where there is one.

    "Invalid question" is looked for before the match, so that in training a false premise is never
    rewarded, as published; the published evaluation looks for the match first, which
    `boxed_answer_evaluated` does. Answers are compared in lower case without punctuation and
    articles.
    """
    return _boxed(text, row, judge, match_first=False)


def boxed_answer_evaluated(
    text: str, row: Mapping[str, Any], judge: Callable[[str, Mapping[str, Any]], bool] | None = None
) -> Verdict:
    """`boxed_answer` as TruthRL evaluates: the exact match is looked for before "invalid question"."""
    return _boxed(text, row, judge, match_first=True)


def _boxed(
    text: str,
    row: Mapping[str, Any],
    judge: Callable[[str, Mapping[str, Any]], bool] | None,
    match_first: bool,
) -> Verdict:
    if row.get("answer") in (None, ""):
        return Verdict("unscored", reason='no gold answer: row["answer"] is missing')
    # Not a regular expression, which would search on from each of a million "\\boxed{" without an
    # end.
    _, opened, rest = text.partition(BOXED)
    answer, closed, _ = rest[: 2 * LONGEST].partition("}")
    if not (opened and closed):
        return Verdict("unreadable", reason="no \\boxed{}")
    said, gold = _normal(answer), _normal(_gold(row))
    if "i dont know" in said:
        return Verdict("abstained", answer)
    matches = bool(gold) and said == gold
    if "invalid question" in said and not (match_first and matches):
        return Verdict("wrong", answer, "invalid question")
    return Verdict(
        "right" if matches or (judge is not None and judge(answer, row)) else "wrong", answer
    )


def _normal(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces."""
    words = re.sub(r"[^\w\s]", "", text.lower()).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


VERIFIERS: dict[str, Verifier] = {
    "last_number": last_number,
    "hash_line": hash_line,
    "hash_confidence": hash_confidence,
    "tagged_answer": tagged_answer,
    "choice": choice,
    "boxed_answer": boxed_answer,
    "boxed_answer_evaluated": boxed_answer_evaluated,
}


def by_name(name: str) -> Verifier:
    """The verifier of that name. ValueError, with the nearest name, where there is none."""
    if name not in VERIFIERS:
        raise ValueError(f"no verifier {name!r}; {suggest(name, VERIFIERS)}")
    return VERIFIERS[name]


def is_number(answer: str) -> bool:
    """True where a gold answer is a number and nothing else, but for a unit sign or a declaration:
    "18", "$1,200", "... #### 18"; not "12 apples".
    """
    number = _read_number(answer)
    left = FRACTION.sub(r"\1/\2", _declared(answer).replace("\u2212", "-")).replace(
        number or "", "", 1
    )
    return _value(number) is not None and not re.sub(r"[\s$\u20ac\u00a3%.\\]", "", left)


def _gold(row: Mapping[str, Any]) -> str:
    """row["answer"] as text; "" where it is missing, or an integer with more digits than Python
    prints.
    """
    try:
        return str(row.get("answer", ""))
    except ValueError:
        return ""


def _read_number(text: str) -> str | None:
    """The number a text declares or ends in, as written; None where there is none."""
    text = FRACTION.sub(r"\1/\2", _declared(text).replace("\u2212", "-"))
    last = None
    for match in NUMBER.finditer(text):
        last = match
    return last[0] if last and len(last[0]) <= LONGEST else None


def _declared(text: str) -> str:
    """The part of a text that holds its answer: inside the last \\boxed{}, else the last declared
    line, else everything.
    """
    start = text.rfind(BOXED)
    if start >= 0:
        return _braced(text[start + len(BOXED) :][:LONGEST])
    last = None
    for match in DECLARED.finditer(text):
        last = match
    # An answer below its label counts too, so that "Answer:\n5" is read.
    return text[last.end() :].lstrip("\n* ").partition("\n")[0] if last else text


def _braced(text: str) -> str:
    """Text up to the brace that closes an already open one, or all of it."""
    depth = 1
    for i, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return text[:i]
    return text


def _value(number: str | None) -> Fraction | None:
    """The exact value of a number as written, None where there is none or its denominator is 0."""
    if number is None:
        return None
    try:
        return Fraction(number.replace(",", ""))
    except (ValueError, ZeroDivisionError):
        return None
