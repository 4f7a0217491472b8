"""Where the user's data are, and how a data set is read: a file, a folder, or a Hub id."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from critique_rl.config.checks import ConfigError, suggest

READERS = {
    ".jsonl": "json",
    ".json": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".csv": "csv",
}
"""Suffix of a file -> builder of `load_dataset`."""


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


def read_dataset(name: str, split: str = "train", subset: str = "") -> Any:
    """Read a data set.

    Args:
        name: A file or a folder, else a Hub id.
        split: Split of a folder or a Hub id. A file has one split.
        subset: Subset of a Hub id.

    Returns:
        A `datasets.Dataset`.

    Raises:
        ConfigError: With the cause, where it cannot be read.
    """
    from datasets import load_dataset

    path = Path(name).expanduser()
    # Of a.jsonl.gz the suffix that tells the format is not the last one.
    known = [suffix for suffix in path.suffixes if suffix in READERS]
    suffix = known[0] if known else ""
    # Any other name may be a Hub id.
    is_path = bool(suffix) or name.startswith((".", "/", "~"))
    if is_path and not path.exists():
        raise ConfigError(f"no file {name}; {_file_advice(path)}")
    try:
        if suffix and path.is_file():
            return load_dataset(READERS[suffix], data_files=str(path), split="train")
        source = str(path) if path.is_dir() else name
        return load_dataset(source, subset or None, split=split)
    # pandas, pyarrow and the Hub raise all kinds of errors for files that are not what they are
    # called; an empty file raises StopIteration.
    except Exception as error:
        message = _cause_message(error) or "it holds nothing"
        raise ConfigError(f"cannot read {name}: {message}") from error


def _cause_message(error: Exception) -> str:
    from datasets.exceptions import DatasetGenerationError

    cause: BaseException = error
    # datasets wraps the error of its reader in one that says only that it failed.
    if isinstance(error, DatasetGenerationError) and error.__cause__:
        cause = error.__cause__
    words = str(cause).split()
    return " ".join(words)[:300]


def _file_advice(path: Path) -> str:
    """The nearest data file of the folder, or the kinds of files that can be read."""
    files = []
    if path.parent.is_dir():
        siblings = path.parent.glob("*")
        files = [file.name for file in siblings if file.suffix in READERS]
    if files:
        return suggest(path.name, files)
    return "give a file of JSONL, Parquet or CSV, or a Hub id"
