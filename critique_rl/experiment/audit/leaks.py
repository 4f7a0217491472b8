"""Whether logged critiques give the logged answer away."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from critique_rl.critic.leaks import leaks_answer
from critique_rl.types import Attempt, Verdict

MOST_CHECKED = 5_000
"""Critiques of a run that are searched; each takes up to milliseconds."""
MOST_PLACES = 5
LONG_WORD = 4
"""Letters of a word that is looked for as it is."""
DECLARED = r"\b(?:answer|choice|option|result)\b[^.\n]{{0,20}}\b{}\b"
"""An answer of one sign, where a critique calls it that; `{}` is the answer."""


class LeakCount:
    """Critiques of one run."""

    def __init__(self) -> None:
        self.critiques = 0
        self.checked = 0
        """Those whose row has the answer, up to `MOST_CHECKED`."""
        self.leaked = 0
        self.places: list[str] = []
        """The first that leak."""

    def add(self, critique: str, question: str, answer: Any, place: str) -> None:
        """Count a critique, and search it where its answer is known."""
        # critique_rl writes "(failed: timeout)" where no critique came.
        if critique.startswith("(") and critique.endswith(")") and ":" in critique:
            return
        self.critiques += 1
        gold = _gold(answer)
        if not gold or self.checked >= MOST_CHECKED:
            return
        self.checked += 1
        if _tells(critique, question, gold):
            self.leaked += 1
            if len(self.places) < MOST_PLACES:
                self.places.append(place)


def _tells(critique: str, question: str, gold: str) -> bool:
    """Whether a critique holds the answer, by the rules of our critics and two more."""
    lower = critique.lower()
    if len(gold) == 1:
        # "You made 2 errors" is no answer of 2, and "a" is a word.
        pattern = DECLARED.format(re.escape(gold))
        return re.search(pattern, lower) is not None
    if gold.isalpha() and len(gold) >= LONG_WORD:
        if gold in question.lower():
            return False
        pattern = rf"\b{re.escape(gold)}\b"
        return re.search(pattern, lower) is not None
    attempt = Attempt(question, "", Verdict("wrong"), {"answer": gold})
    return leaks_answer(critique, attempt, _is_answer)


def _is_answer(piece: str, row: Mapping[str, Any]) -> bool:
    return _plain(piece) == row["answer"]


def _plain(value: Any) -> str:
    """An answer's text without case, commas and a fraction of zeros."""
    if value is None:
        return ""
    # GSM8K's answers end with it.
    _, _, text = str(value).rpartition("####")
    text = text.strip().lower()
    text = text.replace(",", "").rstrip(".")
    return re.sub(r"(?<=\d)\.0+$", "", text)


def _gold(value: Any) -> str:
    """The answer in a row's column: itself, the only item of a list, or an object's answer."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str) and value[:1] in "[{":
        with suppress(ValueError, RecursionError):
            return _gold(json.loads(value))
    if isinstance(value, Mapping):
        value = value.get("answer", value.get("ground_truth"))
    text = _plain(value)
    boxed = re.search(r"\\boxed\{([^{}]*)\}", text)
    if boxed:
        text = boxed[1]
    return text.strip("$ ")
