"""Data sets of the user, as `datasets.load_dataset` reads them: a file, a folder, or a Hub id."""

from __future__ import annotations

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
    suffix = next((suffix for suffix in path.suffixes if suffix in READERS), "")
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
