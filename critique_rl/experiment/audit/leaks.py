"""Whether logged critiques give the logged answer away."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from critique_rl.critic.leaks import leaks_answer
from critique_rl.types import Attempt, Verdict

MOST_CHECKED = 5_000
"""Critiques of a run that are searched; each takes up to milliseconds."""
MOST_PLACES = 5


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
        gold = _plain(answer)
        if not gold or self.checked >= MOST_CHECKED:
            return
        self.checked += 1
        attempt = Attempt(question, "", Verdict("wrong"), {"answer": gold})
        if leaks_answer(critique, attempt, _is_answer):
            self.leaked += 1
            if len(self.places) < MOST_PLACES:
                self.places.append(place)


def _is_answer(piece: str, row: Mapping[str, Any]) -> bool:
    return _plain(piece) == row["answer"]


def _plain(value: Any) -> str:
    """An answer's text without case, commas and a fraction of zeros."""
    if value is None:
        return ""
    text = str(value).split("####")[-1].strip().lower()
    text = text.replace(",", "").rstrip(".")
    return re.sub(r"(?<=\d)\.0+$", "", text)
