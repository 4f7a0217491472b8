"""Rows of the word problems, their split, and what was left out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from critique_rl.config.terminal import say
from critique_rl.hashing import split_of, uniform
from critique_rl.tasks.gym_rows import REQUEST
from critique_rl.tasks.row import SPLITS, Row
from critique_rl.tasks.rows.question_key import question_key
from critique_rl.tasks.words.archive import END, MEMBERS, archive_path, read_lines
from critique_rl.tasks.words.stories import story_keys
from critique_rl.tasks.words.workings import derive_working, written

FAMILIES = tuple(MEMBERS)
NUMBER = re.compile(r"-?\d{1,15}(?:\.\d{1,9}|/[1-9]\d{0,8})?", re.ASCII)
"""An answer that is one number. Others are names, times, ratios, and pairs such as "60; 72"."""


@dataclass(frozen=True)
class WordProblems:
    """Usable rows of each split, and counts of the others."""

    splits: Mapping[str, list[Row]]
    """train, validation, test -> rows, in an order that depends on their questions alone."""
    left_out: Mapping[str, int]
    """Family and reason -> rows."""

    def rows(self, split: str, with_working: bool = False) -> list[Row]:
        """Rows of a split; with a working: those alone that have one."""
        return [row for row in self.splits[split] if row["solution"] or not with_working]

    def held_out(self, split: str, count: int, with_working: bool = False) -> list[Row]:
        """At most `count` rows of each family of a split."""
        taken: Counter[str] = Counter()
        rows = []
        for row in self.rows(split, with_working):
            family = row["family"]
            taken[family] += 1
            if taken[family] <= count:
                rows.append(row)
        return rows

    def summary(self) -> str:
        """One line for people."""
        counts = [f"{len(rows)} {split}" for split, rows in self.splits.items()]
        parts = ["reasoning-core/words: " + ", ".join(counts)]
        for reason, count in self.left_out.items():
            parts.append(f"{count} left out: {reason}")
        return "; ".join(parts)


def load_problems() -> WordProblems:
    """The word problems of the installed package, read once per process.

    Raises:
        ImportError: Without the package reasoning-core.
        ValueError: For a file that cannot be read, or has nothing to train on.
    """
    path = archive_path()
    return read_problems(path, path.stat().st_mtime_ns)


# The time of the last change is a part of the key: a file that was written anew is read anew.
@lru_cache(maxsize=4)
def read_problems(path: Path, changed: int = 0) -> WordProblems:
    """The word problems of an archive.

    Args:
        path: The archive.
        changed: Time of its last change.

    Raises:
        ValueError: For a file that cannot be read, or has nothing to train on.
    """
    rows: dict[str, Row] = {}
    left_out: Counter[str] = Counter()
    for family in FAMILIES:
        for number, line in read_lines(path, family):
            row = _row(line, family, number)
            if isinstance(row, str):
                left_out[f"{family}, {row}"] += 1
                continue
            first = rows.setdefault(question_key(row["question"]), row)
            if first is not row:
                left_out[f"{family}, the same question again"] += 1
    splits: dict[str, list[Row]] = {split: [] for split in SPLITS}
    stories = story_keys(list(rows))
    for story, key in sorted(zip(stories, rows, strict=True), key=lambda pair: uniform(pair[1])):
        splits[split_of(story, SPLITS)].append(rows[key])
    problems = WordProblems(splits, dict(left_out))
    if left_out:
        say(problems.summary())
    if not splits["train"]:
        raise ValueError(
            f"{path} has no row to train on ({problems.summary()}); "
            "install reasoning-core 0.5.0 again"
        )
    return problems


def _row(line: Mapping[str, Any] | None, family: str, number: int) -> Row | str:
    """A line as a row of the task, or the reason why it cannot be used."""
    if line is None:
        return "no object of JSON"
    prompt = line.get("prompt")
    answer = line.get("answer")
    if not isinstance(prompt, str) or not isinstance(answer, str):
        return "no prompt and answer as texts"
    question = prompt.removesuffix(END).strip()
    if not re.search(r"[a-zA-Z]", question):
        return "no question"
    answer = answer.strip()
    if not NUMBER.fullmatch(answer):
        return "its answer is not one number"
    working = derive_working(question, answer)
    return {
        "prompt": [{"role": "user", "content": f"{question}\n{REQUEST}"}],
        "question": question,
        "answer": answer,
        "solution": written(working),
        "family": family,
        "id": f"{family}/{number}",
    }
