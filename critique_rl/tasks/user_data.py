"""The user's own questions as rows: JSONL, JSON, CSV or Parquet files, folders of them, or data
sets of the Hub. `datasets.load_dataset` reads them.

    task: {name: data, options: {train: questions.jsonl}}      # columns `question` and `answer`; options: the fields of `DataOptions`

As in TRL, a column `prompt` (a text, or a conversation) is taken as it is; otherwise the question
becomes a user message. What no file is given for is held out of `train`, by a hash of the prompt: a
prompt stays in its split whatever is added, and none is in two. Rows that cannot be used are left
out, counted and explained. Left out: images, tools, streams, and an oracle, which nobody has for
data of their own.
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
from typing import Any

from critique_rl.config.checks import ConfigError, suggest
from critique_rl.hashing import split_of, uniform
from critique_rl.tasks.answer_text import is_number
from critique_rl.tasks.gym_rows import SPLITS

Row = Mapping[str, Any]
READERS = {
    ".jsonl": "json",
    ".json": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".csv": "csv",
}
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
"""Columns that TRL would mistake for its own arguments of a reward function; they are dropped."""
DEFAULT_FAMILY = "data"


@dataclass(frozen=True)
class DataOptions:
    """Where the rows are, and what their columns are called. Files are looked for from the folder
    the command runs in.
    """

    train: str
    """A file, a folder, or a Hub id."""
    validation: str = ""
    """"": a tenth of train."""
    test: str = ""
    """"": a tenth of train."""
    subset: str = ""
    """Of a Hub id, such as "main" of openai/gsm8k."""
    question: str = ""
    """"": `prompt` where there is one, else `question`."""
    answer: str = "answer"
    """What the verifier reads."""
    solution: str = ""
    """A worked solution, which critics and teachers may read. "": `solution`, where there is one.
    """
    family: str = ""
    """What evaluations are split by. "": `family` where there is one, else all rows are of the
    family "data".
    """
    system: str = ""
    """A system message before each question."""


@dataclass(frozen=True)
class UserData:
    """Usable rows of each split, and how many were left out for which reason."""

    splits: Mapping[str, list[Row]]
    left_out: Mapping[str, int]

    def summary(self) -> str:
        """One line for people."""
        counted = ", ".join(f"{len(rows)} {split}" for split, rows in self.splits.items())
        return f"data: {counted}" + "".join(
            f"; {count} left out: {reason}" for reason, count in self.left_out.items()
        )

    def held_out(self, split: str, count: int) -> list[Row]:
        """At most `count` rows of each family, the same for every seed. ConfigError where the split
        has none.
        """
        if not self.splits[split]:
            raise ConfigError(
                f"task.options: no row is left for {split} (of {len(self.splits['train'])} for train); give more rows, or {split}: a file"
            )
        taken: Counter = Counter()
        rows = []
        for row in self.splits[split]:
            taken[row["family"]] += 1
            if taken[row["family"]] <= count:
                rows.append(row)
        return rows

    def without_number(self) -> list[str]:
        """Answers that are no numbers."""
        return [
            row["answer"]
            for rows in self.splits.values()
            for row in rows
            if not is_number(row["answer"])
        ]


def load_user_data(options: DataOptions, needs_answer: bool = True) -> UserData:
    """Read all splits, once a process, and say on stderr what was left out. ConfigError for what
    cannot be read, or has not the columns.
    """
    return _load_once(
        options,
        needs_answer,
        tuple(_stamp(name) for name in (options.train, options.validation, options.test)),
    )


def _stamp(name: str) -> tuple[str, int]:
    """A file as it is now: a relative name, or a file written anew, is another one."""
    path = Path(name).expanduser()
    return (str(path.resolve()), path.stat().st_mtime_ns) if name and path.exists() else (name, 0)


@lru_cache(maxsize=4)
def _load_once(
    options: DataOptions, needs_answer: bool, stamps: tuple[tuple[str, int], ...]
) -> UserData:
    data = _load(options, needs_answer)
    if data.left_out:
        print(data.summary(), file=sys.stderr)
    if not data.splits["train"]:
        raise ConfigError(
            f"task.options: {options.train} has no row to train on ({data.summary()})"
        )
    return data


def _load(options: DataOptions, needs_answer: bool) -> UserData:
    # What is held out first: a question that is asked there is not trained on.
    sources = [split for split in ("test", "validation", "train") if getattr(options, split)]
    bounds = split_bounds(sources)
    splits: dict[str, list[Row]] = {split: [] for split in SPLITS}
    left_out: Counter = Counter()
    seen: dict[str, tuple[str, str]] = {}
    for source in sources:
        for row in _rows(source, options, needs_answer):
            if isinstance(row, str):
                left_out[row] += 1
                continue
            key = _key(row["prompt"])
            if reason := _repeated(seen.get(key), source, row["answer"]):
                left_out[reason] += 1
                continue
            seen[key] = (source, row["answer"])
            splits[split_of(key, bounds) if source == "train" else source].append(row)
    for split in ("validation", "test"):
        # Files are often sorted by how hard they are, and evaluations take the first rows.
        splits[split].sort(key=lambda row: uniform(_key(row["prompt"])))
    return UserData(splits, dict(left_out))


def split_bounds(sources: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Which buckets of 100 of `train` go where: a tenth to each split that has no source of its
    own.
    """
    missing = [split for split in SPLITS if split not in sources]
    kept = 100 - 10 * len(missing)
    return {
        "train": (0, kept),
        **{split: (kept + 10 * i, kept + 10 * (i + 1)) for i, split in enumerate(missing)},
    }


def _repeated(before: tuple[str, str] | None, source: str, answer: str) -> str:
    if before is None:
        return ""
    if before[0] != source:
        return f"asked in {before[0]} too"
    return (
        "the same question again"
        if before[1] == answer
        else "the same question again, with another answer"
    )


def _key(prompt: Any) -> str:
    """A prompt as one text, whatever its white space."""
    return " ".join(
        (prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False)).split()
    )


def _rows(source: str, options: DataOptions, needs_answer: bool) -> Iterator[Row | str]:
    """Each row of a source, or the reason why it cannot be used."""
    name = getattr(options, source)
    dataset = read_dataset(name, source, options.subset)
    columns = _columns(dataset.column_names, options, name, needs_answer)
    try:
        for place, raw in enumerate(dataset):
            yield _row(raw, columns, options.system, f"{source}/{place}", needs_answer)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"cannot read {name}: it is no UTF-8 ({error.reason}); save it as UTF-8, for instance by iconv -f latin1 -t utf-8"
        ) from error


def _columns(
    known: Sequence[str], options: DataOptions, name: str, needs_answer: bool
) -> dict[str, str]:
    """The file's column for each of ours; those that may be missing only where they are there."""
    question = options.question or ("prompt" if "prompt" in known else "question")
    if options.system and question == "prompt":
        raise ConfigError(
            "task.options.system: a prompt is taken as it is; put the system message into it, or name another column with question:"
        )
    columns = {"prompt" if question == "prompt" else "question": question, "answer": options.answer}
    columns |= {
        ours: getattr(options, ours) or ours
        for ours in ("solution", "family")
        if getattr(options, ours) or ours in known
    }
    if not needs_answer and options.answer not in known:
        del columns["answer"]
    for ours, theirs in columns.items():
        if theirs not in known:
            raise ConfigError(
                f"task.options.{'question' if ours == 'prompt' else ours}: no column {theirs!r} in {name}; {suggest(theirs, known)}"
            )
    return columns


def _row(
    raw: Row, columns: Mapping[str, str], system: str, identity: str, needs_answer: bool
) -> Row | str:
    kept = {
        name: value for name, value in raw.items() if name not in (*columns.values(), *RESERVED)
    }
    ours = {
        name: _text(raw[theirs], theirs) for name, theirs in columns.items() if name != "prompt"
    }
    prompt = _prompt(raw["prompt"]) if "prompt" in columns else _asked(ours["question"], system)
    question = ours.get("question") or _question(prompt)
    if not question.strip():
        return "no question"
    if needs_answer and not ours["answer"]:
        return "no answer"
    family = ours.get("family") or DEFAULT_FAMILY
    if family == "all":
        raise ConfigError(
            "task.options.family: 'all' is the name of all families together; give that family another one"
        )
    return {
        **kept,
        **ours,
        "prompt": prompt,
        "question": question,
        "answer": ours.get("answer", ""),
        "family": family,
        "id": identity,
    }


def _text(value: Any, column: str) -> str:
    if isinstance(value, list | dict | bytes):
        raise ConfigError(
            f"column {column!r}: got {str(value)[:60]!r}, expected a text or a number; write one column of texts"
        )
    return (
        ""
        if value is None or (isinstance(value, float) and math.isnan(value))
        else str(value).strip()
    )


def _asked(question: str, system: str) -> list[dict[str, str]]:
    return [
        *([{"role": "system", "content": system}] if system else []),
        {"role": "user", "content": question},
    ]


def _prompt(value: Any) -> str | list[dict[str, str]]:
    """A text or a conversation that ends with the user, as it is. ConfigError for anything else."""
    if value is None or isinstance(value, str):
        return value or ""
    said = [
        (message.get("role"), message.get("content")) if isinstance(message, dict) else ("", None)
        for message in value
        if isinstance(value, list)
    ]
    if (
        not said
        or said[-1][0] != "user"
        or not all(isinstance(content, str) for _, content in said)
    ):
        raise ConfigError(
            f"column 'prompt': got {str(value)[:80]!r}, expected a text, or messages (role, content) of which the last is the user's"
        )
    return [{"role": role, "content": content} for role, content in said]


def _question(prompt: str | list[dict[str, str]]) -> str:
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def read_dataset(name: str, split: str = "train", subset: str = ""):
    """A data set by `datasets.load_dataset`: a file or folder, else the Hub's. ConfigError, with
    the cause, where that fails.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    path = Path(name).expanduser()
    suffix = next((suffix for suffix in path.suffixes if suffix in READERS), "")
    if not path.exists() and (suffix or name.startswith((".", "/", "~"))):
        near = (
            [file.name for file in path.parent.glob("*") if file.suffix in READERS]
            if path.parent.is_dir()
            else []
        )
        raise ConfigError(
            f"no file {name}; "
            + (
                suggest(path.name, near)
                if near
                else "give a file of JSONL, Parquet or CSV, or a Hub id"
            )
        )
    try:
        if suffix and path.is_file():
            return load_dataset(READERS[suffix], data_files=str(path), split="train")
        return load_dataset(str(path) if path.is_dir() else name, subset or None, split=split)
    # Whatever pandas, pyarrow and the Hub say to files that are not what they are called;
    # StopIteration of an empty one.
    except Exception as error:
        cause = (
            error.__cause__
            if isinstance(error, DatasetGenerationError) and error.__cause__
            else error
        )
        raise ConfigError(
            f"cannot read {name}: {' '.join(str(cause).split())[:300] or 'it holds nothing'}"
        ) from error
