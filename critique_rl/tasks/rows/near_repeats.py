"""Questions that two of the user's own splits ask in nearly the same words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from critique_rl.config.checks import ConfigError
from critique_rl.tasks.row import Row
from critique_rl.tasks.rows.question_key import last_user_text

SHOWN = 120
"""Characters of a question in a message."""
REASON = "asked in {} in nearly the same words"


class NearRepeats:
    """Looks for the questions of one source among those of the sources read before it."""

    def __init__(self, policy: str):
        self.policy = policy
        """`task.options.near_repeats`."""
        self.count = 0
        self.pair: tuple[str, str, str, str] | None = None
        self.seen: dict[str, tuple[str, Any]] = {}

    def reason(self, prompt: Any, key: str, source: str) -> str:
        """Why a row is to be left out; "" where it may stay. Its question is remembered.

        Args:
            prompt: Of the row.
            key: Its `question_key`.
            source: The split that has it.
        """
        first_source, first = self.seen.setdefault(key, (source, prompt))
        if first_source == source:
            return ""
        self.count += 1
        if self.pair is None:
            self.pair = (source, _shown(prompt), first_source, _shown(first))
        if self.policy == "leave_out":
            return REASON.format(first_source)
        return ""

    def check(self) -> None:
        """Refuse the data where repeats are neither left out nor kept.

        Raises:
            ConfigError: With their number and the first pair.
        """
        if self.policy != "refuse" or self.pair is None:
            return
        source, question, first_source, first = self.pair
        raise ConfigError(
            f"task.options: {self.count} questions stand in two splits in nearly the same words, "
            f"such as {question!r} in {source} and {first!r} in {first_source}; mend the files, or "
            "set task.options.near_repeats: leave_out (of the split that is trained on) or keep"
        )


def _shown(prompt: Any) -> str:
    words = last_user_text(prompt).split()
    return " ".join(words)[:SHOWN]


def with_all_columns(splits: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """The same rows, each with the columns of all; None where a row has no value.

    TRL's data set gives each row all columns, and evaluations read the rows themselves.
    """
    names: dict[str, None] = {}
    for rows in splits.values():
        for row in rows:
            names.update(dict.fromkeys(row))
    filled: dict[str, list[Row]] = {}
    for split, rows in splits.items():
        filled[split] = [dict.fromkeys(names) | dict(row) for row in rows]
    return filled
