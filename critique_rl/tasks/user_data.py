"""The user's questions as rows: JSONL, JSON, CSV or Parquet files, folders of them, or data sets of
the Hub.

    task: {name: data, options: {train: questions.jsonl}}

By default the columns are `question` and `answer`; options are the fields of `DataOptions`.

A split without a source is held out of `train`, by a hash of the last user message: a question
stays in its split whatever is added, and near repeats fall into one. Rows that cannot be used are
left out, counted and explained. Left out: images, tools, streams, and an oracle, which nobody has
for such data.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from critique_rl.config.checks import ConfigError
from critique_rl.config.terminal import say
from critique_rl.hashing import split_of, uniform
from critique_rl.tasks.answer_text import is_number
from critique_rl.tasks.data_source import DataOptions
from critique_rl.tasks.row import SPLITS, Row
from critique_rl.tasks.rows.near_repeats import NearRepeats, with_all_columns
from critique_rl.tasks.rows.question_key import question_key
from critique_rl.tasks.user_rows import read_rows


class Place(NamedTuple):
    """Where a prompt was read, and with which answer."""

    source: str
    answer: str


@dataclass(frozen=True)
class UserData:
    """Usable rows of each split, and counts of the others."""

    splits: Mapping[str, list[Row]]
    """train, validation, test -> rows."""
    left_out: Mapping[str, int]
    """Reason -> rows that were left out for it."""

    def summary(self) -> str:
        """One line for people."""
        counts = []
        for split, rows in self.splits.items():
            counts.append(f"{len(rows)} {split}")
        parts = ["data: " + ", ".join(counts)]
        for reason, count in self.left_out.items():
            parts.append(f"{count} left out: {reason}")
        return "; ".join(parts)

    def held_out(self, split: str, count: int) -> list[Row]:
        """Rows to evaluate on, the same for every seed.

        Args:
            split: validation or test.
            count: The most rows of each family.

        Raises:
            ConfigError: Where the split has no rows.
        """
        rows = self.splits[split]
        if not rows:
            train = self.splits["train"]
            message = (
                f"task.options: no row is left for {split} (of {len(train)} for train); "
                f"give more rows, or {split}: a file"
            )
            questions = {question_key(row["prompt"]) for row in train}
            if len(questions) < len(train):
                message += (
                    ". Rows are split by their last user message, "
                    f"and those for train have {len(questions)} different ones"
                )
            raise ConfigError(message)
        family_counts: Counter[str] = Counter()
        held_out = []
        for row in rows:
            family = row["family"]
            family_counts[family] += 1
            if family_counts[family] <= count:
                held_out.append(row)
        return held_out

    def without_number(self) -> list[str]:
        """Answers of all splits that are no numbers."""
        answers = []
        for rows in self.splits.values():
            for row in rows:
                answer = row["answer"]
                if not is_number(answer):
                    answers.append(answer)
        return answers


def load_user_data(options: DataOptions, needs_answer: bool = True) -> UserData:
    """Read all splits, once per process, and say on stderr how many rows were left out.

    Args:
        options: Where the rows are.
        needs_answer: Rows without an answer are left out. False for a verifier that needs none.

    Raises:
        ConfigError: For data that cannot be read, lack a column, or have no row to train on.
    """
    train = _stamp(options.train)
    validation = _stamp(options.validation)
    test = _stamp(options.test)
    return _load_once(options, needs_answer, (train, validation, test))


def _stamp(name: str) -> tuple[str, int]:
    """Identity of a file as it is now: (absolute path, time of its last change)."""
    path = Path(name).expanduser()
    if not name or not path.exists():
        return name, 0
    status = path.stat()
    return str(path.resolve()), status.st_mtime_ns


# The stamps are part of the key, so that a file that was written anew is read anew, and a relative
# name in another working folder is another file.
@lru_cache(maxsize=4)
def _load_once(
    options: DataOptions, needs_answer: bool, stamps: tuple[tuple[str, int], ...]
) -> UserData:
    """Raises ConfigError as `load_user_data` does."""
    data = _load(options, needs_answer)
    if data.left_out:
        say(data.summary())
    if not data.splits["train"]:
        raise ConfigError(
            f"task.options, train: {options.train or 'an empty name'} has no row to train on "
            f"({data.summary()})"
        )
    return data


def _load(options: DataOptions, needs_answer: bool) -> UserData:
    """Raises ConfigError as `load_user_data` does."""
    # Held-out sources first: a question that is asked there is not trained on.
    order = ("test", "validation", "train")
    sources = [split for split in order if getattr(options, split)]
    bounds = split_bounds(sources)
    splits: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    left_out: Counter[str] = Counter()
    seen: dict[str, Place] = {}
    split_keys: dict[str, str] = {}
    near_repeats = NearRepeats(options.near_repeats)
    readings: set[str] = set()
    for source in sources:
        for row in read_rows(source, options, needs_answer, readings):
            if isinstance(row, str):
                left_out[row] += 1
                continue
            key = _prompt_key(row)
            place = Place(source, row["answer"])
            first = seen.setdefault(key, place)
            if first is not place:
                reason = _repeat_reason(first, place)
                left_out[reason] += 1
                continue
            # Rule 1 knew no near repeats.
            if options.split_rule > 1:
                key = question_key(row["prompt"])
                reason = near_repeats.reason(row["prompt"], key, source)
                if reason:
                    left_out[reason] += 1
                    continue
            split_keys[row["id"]] = key
            split = split_of(key, bounds) if source == "train" else source
            splits[split].append(row)
    near_repeats.check()
    _check_prompts(splits)
    for split in ("validation", "test"):
        # Files are often sorted by how hard they are, and evaluations take the first rows.
        splits[split].sort(key=lambda row: uniform(split_keys[row["id"]]))
    return UserData(with_all_columns(splits), dict(left_out))


def _check_prompts(splits: Mapping[str, Sequence[Row]]) -> None:
    """Raise ConfigError where some prompts are texts and others are messages."""
    kinds = set()
    for rows in splits.values():
        kinds |= {type(row["prompt"]) for row in rows}
    if len(kinds) > 1:
        raise ConfigError(
            "column 'prompt': got texts in some rows and messages in others, "
            "expected one kind; write all of them as messages (role, content)"
        )


def split_bounds(sources: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Share out the 100 buckets of `train`: a tenth to each split without a source.

    Args:
        sources: Splits that have a file, a folder or a Hub id.

    Returns:
        Split -> (first bucket, bucket after the last one), as `hashing.split_of` takes them.
    """
    missing = [split for split in SPLITS if split not in sources]
    start = 100 - 10 * len(missing)
    bounds = {"train": (0, start)}
    for split in missing:
        bounds[split] = (start, start + 10)
        start += 10
    return bounds


def _repeat_reason(first: Place, second: Place) -> str:
    """Why the second of two rows with one prompt is left out."""
    if first.source != second.source:
        return f"asked in {first.source} too"
    if first.answer == second.answer:
        return "the same question again"
    return "the same question again, with another answer"


def _prompt_key(row: Row) -> str:
    """A row's prompt as one text, whatever its white space."""
    prompt = row["prompt"]
    if not isinstance(prompt, str):
        prompt = json.dumps(prompt, ensure_ascii=False)
    words = prompt.split()
    return " ".join(words)
