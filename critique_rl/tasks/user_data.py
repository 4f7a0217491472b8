"""The user's questions as rows: JSONL, JSON, CSV or Parquet files, folders of them, or data sets of
the Hub (`data_source`).

    task: {name: data, options: {train: questions.jsonl}}

By default the columns are `question` and `answer`; options are the fields of `DataOptions`. As in
TRL, a column `prompt` (a text, or a conversation) is taken as it is; otherwise the question becomes
a user message.

A split without a source is held out of `train`, by a hash of the prompt: a prompt stays in its
split whatever is added, and none is in two. Rows that cannot be used are left out, counted and
explained. Left out: images, tools, streams, and an oracle, which nobody has for such data.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from critique_rl.config.checks import ConfigError, suggest
from critique_rl.hashing import split_of, uniform
from critique_rl.tasks.answer_text import is_number
from critique_rl.tasks.data_source import read_dataset
from critique_rl.tasks.row import SPLITS, Row

RESERVED = (
    "prompts",
    "completion",
    "completions",
    "completion_ids",
    "trainer_state",
    "log_extra",
    "log_metric",
    "environments",
)
"""Columns that TRL would mistake for its arguments of a reward function; they are dropped."""
DEFAULT_FAMILY = "data"


class Place(NamedTuple):
    """Where a prompt was read, and with which answer."""

    source: str
    answer: str


@dataclass(frozen=True)
class DataOptions:
    """Where the rows are, and how their columns are called. Files are looked for from the folder
    that the command runs in.
    """

    train: str
    """A file, a folder, or a Hub id."""
    validation: str = ""
    """The same for validation problems; "": a tenth of train."""
    test: str = ""
    """The same for test problems; "": a tenth of train."""
    subset: str = ""
    """Subset of a Hub id, such as "main" of openai/gsm8k."""
    question: str = ""
    """Column of the question; "": `prompt` if there is one, else `question`."""
    answer: str = "answer"
    """Column of the gold answer, which the verifier reads."""
    solution: str = ""
    """Column of a worked solution, which critics and teachers may read; "": `solution`, if there is
    one.
    """
    family: str = ""
    """Column that evaluations are split by; "": `family` if there is one, else all rows are of the
    family "data".
    """
    system: str = ""
    """A system message before each question."""


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
        parts = [f"data: {', '.join(counts)}"]
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
            trained = len(self.splits["train"])
            raise ConfigError(
                f"task.options: no row is left for {split} (of {trained} for train); "
                f"give more rows, or {split}: a file"
            )
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
    sources = (options.train, options.validation, options.test)
    stamps = tuple(_stamp(source) for source in sources)
    return _load_once(options, needs_answer, stamps)


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
        print(data.summary(), file=sys.stderr)
    if not data.splits["train"]:
        raise ConfigError(
            f"task.options: {options.train} has no row to train on ({data.summary()})"
        )
    return data


def _load(options: DataOptions, needs_answer: bool) -> UserData:
    # Held-out sources first: a question that is asked there is not trained on.
    order = ("test", "validation", "train")
    sources = [split for split in order if getattr(options, split)]
    bounds = split_bounds(sources)
    splits: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    left_out: Counter[str] = Counter()
    seen: dict[str, Place] = {}
    for source in sources:
        for row in _read_rows(source, options, needs_answer):
            if isinstance(row, str):
                left_out[row] += 1
                continue
            key = _prompt_key(row)
            place = Place(source, row["answer"])
            if key in seen:
                reason = _repeat_reason(seen[key], place)
                left_out[reason] += 1
                continue
            seen[key] = place
            split = split_of(key, bounds) if source == "train" else source
            splits[split].append(row)
    for split in ("validation", "test"):
        # Files are often sorted by how hard they are, and evaluations take the first rows.
        splits[split].sort(key=_shuffled_place)
    return UserData(splits, dict(left_out))


def _shuffled_place(row: Row) -> float:
    key = _prompt_key(row)
    return uniform(key)


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


def _read_rows(source: str, options: DataOptions, needs_answer: bool) -> Iterator[Row | str]:
    """Each row of a source, or the reason why it cannot be used.

    Raises:
        ConfigError: For a source that cannot be read.
    """
    name = getattr(options, source)
    dataset = read_dataset(name, source, options.subset)
    columns = _find_columns(dataset.column_names, options, name, needs_answer)
    try:
        for place, raw in enumerate(dataset):
            row_id = f"{source}/{place}"
            yield _read_row(raw, columns, options.system, row_id, needs_answer)
    # pyarrow takes bytes for text unchecked, and they are decoded when a row is read.
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"cannot read {name}: it is no UTF-8 ({error.reason}); "
            "save it as UTF-8, for instance by iconv -f latin1 -t utf-8"
        ) from error


def _find_columns(
    known: Sequence[str], options: DataOptions, name: str, needs_answer: bool
) -> dict[str, str]:
    """Find the columns of a row in a file.

    Returns:
        prompt or question, answer, solution, family -> the file's column. The last three only
        where the file has them, or the user named them.

    Raises:
        ConfigError: For a column that the file does not have.
    """
    question = options.question
    if not question:
        question = "prompt" if "prompt" in known else "question"
    if options.system and question == "prompt":
        raise ConfigError(
            "task.options.system: a prompt is taken as it is; put the system message into it, "
            "or name another column with question:"
        )
    columns = {"prompt" if question == "prompt" else "question": question}
    if needs_answer or options.answer in known:
        columns["answer"] = options.answer
    for key in ("solution", "family"):
        column = getattr(options, key)
        if column or key in known:
            columns[key] = column or key
    for key, column in columns.items():
        if column not in known:
            option = "question" if key == "prompt" else key
            advice = suggest(column, known)
            raise ConfigError(f"task.options.{option}: no column {column!r} in {name}; {advice}")
    return columns


def _read_row(
    raw: Row, columns: Mapping[str, str], system: str, row_id: str, needs_answer: bool
) -> Row | str:
    """A row of the file as a row of the task, or the reason why it cannot be used.

    Raises:
        ConfigError: For a value that no row may hold there.
    """
    texts = {}
    for key, column in columns.items():
        if key != "prompt":
            texts[key] = _read_text(raw[column], column)
    if "prompt" in columns:
        prompt = _read_prompt(raw["prompt"])
    else:
        prompt = _chat_prompt(texts["question"], system)
    question = texts.get("question") or _last_message(prompt)
    if not question.strip():
        return "no question"
    if needs_answer and not texts["answer"]:
        return "no answer"
    family = texts.get("family") or DEFAULT_FAMILY
    if family == "all":
        raise ConfigError(
            "task.options.family: 'all' is the name of all families together; "
            "give that family another one"
        )
    row = dict(raw)
    for name in (*columns.values(), *RESERVED):
        row.pop(name, None)
    row |= texts
    row["prompt"] = prompt
    row["question"] = question
    row["answer"] = texts.get("answer", "")
    row["family"] = family
    row["id"] = row_id
    return row


def _read_text(value: Any, column: str) -> str:
    """A cell as text, "" for an empty one. Raises ConfigError for lists, objects and bytes."""
    if isinstance(value, list | dict | bytes):
        shown = str(value)[:60]
        raise ConfigError(
            f"column {column!r}: got {shown!r}, expected a text or a number; "
            "write one column of texts"
        )
    if value is None:
        return ""
    # A file may hold NaN for an empty cell, as pandas writes it.
    if isinstance(value, float) and math.isnan(value):
        return ""
    return str(value).strip()


def _chat_prompt(question: str, system: str) -> list[dict[str, str]]:
    messages = []
    if system:
        messages.append({"role": "system", "content": system})
    messages.append({"role": "user", "content": question})
    return messages


def _read_prompt(value: Any) -> str | list[dict[str, str]]:
    """A text, or a conversation that ends with the user, as it is.

    Raises:
        ConfigError: For anything else.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    is_chat = isinstance(value, list) and all(_is_message(message) for message in value)
    if not is_chat or not value or value[-1].get("role") != "user":
        shown = str(value)[:80]
        raise ConfigError(
            f"column 'prompt': got {shown!r}, expected a text, "
            "or messages (role, content) of which the last is the user's"
        )
    # Without other keys: datasets may fill in the keys of other rows' messages, with None.
    prompt = []
    for message in value:
        role = message.get("role")
        prompt.append({"role": role, "content": message["content"]})
    return prompt


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and isinstance(message.get("content"), str)


def _last_message(prompt: str | list[dict[str, str]]) -> str:
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]
