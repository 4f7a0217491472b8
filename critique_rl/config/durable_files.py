"""Text, JSON, YAML and JSONL files that a crash cannot leave half-written.

A file is written beside its place, flushed to disk and renamed, so that readers see the old file or
the new one. Left out: SQLite files and checkpoints, whose rooms have rules of their own.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import yaml

from critique_rl.config.checks import ConfigError
from critique_rl.hashing import text_checksum

CHECKSUM = "checksum"
DELETE = "put back a copy, or delete it and give the command again"
LOGGED = "metrics_jsonl"
"""Key of eval.json: the checksum of metrics.jsonl when the run had finished."""
EVALUATIONS = "evaluations"
"""Key of the base's config.yaml: folder of each eval.json -> its checksum."""
EVALUATE = "delete it and evaluate again"
REWRITE = "put back a copy, or delete eval.json and train the run again, which writes it anew"
"""Advice for metrics.jsonl: a run that goes on from its last checkpoint repairs it."""


class DamagedFile(ConfigError):
    """A file of a run folder that is not what was written."""

    def __init__(self, path: Path, problem: str, advice: str):
        self.problem = " ".join(problem.split())[:200]
        super().__init__(f"{path} is damaged ({self.problem}); {advice}")


def write_text(path: Path, text: str) -> None:
    """Replace a text file as `write_bytes` does. Raises OSError like it."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step; folders above it are made.

    Raises:
        OSError: It cannot be written; the error names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process number keeps two writers of one file apart; the last rename wins.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        # Without it a power cut may keep the rename and lose the text: an empty file.
        os.fsync(file.fileno())
    try:
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        # The error names the file's place: the temporary file's name would hide what is in the way.
        raise type(error)(error.errno, error.strerror, str(path)) from error


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file. Raises ValueError for NaN and infinity, which are no JSON."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path, advice: str = DELETE) -> dict[str, Any]:
    """Read a file of `write_json` that holds an object.

    Args:
        path: the file.
        advice: for the error: what to do about a damaged one.

    Returns:
        The object; {} without a file.

    Raises:
        DamagedFile: it holds something else, or cannot be read.
    """
    if not path.exists():
        return {}
    text = _read_text(path, advice)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedFile(path, f"no JSON: {error}", advice) from error
    return _mapping(path, value, advice)


def with_checksum(value: dict[str, Any]) -> dict[str, Any]:
    """An object for `write_json` with the checksum of all else in it, as its last key."""
    unsigned = {key: item for key, item in value.items() if key != CHECKSUM}
    plain = json.loads(json.dumps(unsigned))
    return {**plain, CHECKSUM: checksum_of(plain)}


def checksum_of(value: Any) -> str:
    """The checksum of a value of JSON without the times in it: equal runs have equal ones."""
    # transformers sorts the keys of the logs in its checkpoints.
    return text_checksum(json.dumps(_without_times(value), sort_keys=True))


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_times(item)
            for key, item in value.items()
            if not str(key).endswith(("seconds", "_time"))
        }
    if isinstance(value, list | tuple):
        return [_without_times(item) for item in value]
    return value


def check_checksum(path: Path, value: dict[str, Any], advice: str) -> None:
    """Check an object that was read from a file of `with_checksum`; one without it passes.

    Raises:
        DamagedFile: The object is another one.
    """
    if CHECKSUM in value and with_checksum(value) != value:
        raise DamagedFile(path, "its content has another checksum", advice)


def write_yaml(path: Path, value: Any) -> None:
    """Replace a YAML file; keys keep their order."""
    write_text(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def read_yaml(path: Path, advice: str = DELETE) -> dict[str, Any]:
    """Read a file of `write_yaml` that holds a mapping.

    Args:
        path: the file.
        advice: for the error: what to do about a damaged one.

    Raises:
        DamagedFile: it holds something else, or cannot be read.
    """
    text = _read_text(path, advice)
    try:
        value = yaml.safe_load(text)
        # A YAML file can hold itself, which no reader of ours can.
        json.dumps(value, default=str)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise DamagedFile(path, f"no YAML: {error}", advice) from error
    return _mapping(path, value, advice)


def _read_text(path: Path, advice: str) -> str:
    """Raises DamagedFile for what is no file of UTF-8, or cannot be read."""
    try:
        if path.exists() and not path.is_file():
            raise DamagedFile(path, "it is no file", advice)
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DamagedFile(path, str(error.strerror or error), advice) from error
    except UnicodeDecodeError as error:
        raise DamagedFile(path, f"no UTF-8: {error.reason}", advice) from error


def _mapping(path: Path, value: Any, advice: str) -> dict[str, Any]:
    """Raises DamagedFile for anything but a mapping."""
    if not isinstance(value, dict):
        raise DamagedFile(path, f"it holds {str(value)[:40]!r}, expected a mapping", advice)
    return value


def append_jsonl(path: Path, row: dict[str, Any]) -> None:
    """Add one object as a line; NaN and infinity, which are no JSON, become null.

    `read_jsonl` skips a line that a crash cut short.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(jsonl_line(row))


def jsonl_line(row: dict[str, Any]) -> str:
    """An object as a line of a file of `append_jsonl`."""
    return json.dumps(without_nan(row), allow_nan=False) + "\n"


def without_nan(value: Any) -> Any:
    """A value of JSON with None for each NaN and infinity in it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return value


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a file of `append_jsonl`.

    Returns:
        The objects of all lines; [] without a file. The last one is left out where a crash cut it
        short.

    Raises:
        DamagedFile: another line is no object, or the file cannot be read.
    """
    rows, damaged = readable_rows(path)
    if damaged:
        raise DamagedFile(path, f"line {damaged[0]} is no JSON object", REWRITE)
    return rows


def readable_rows(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The objects of a file of `append_jsonl`, and the numbers (from 1) of its damaged lines.

    A last line that a crash cut short is no damage.

    Raises:
        DamagedFile: the file cannot be read.
    """
    if not path.exists():
        return [], []
    try:
        if not path.is_file():
            raise DamagedFile(path, "it is no file", REWRITE)
        content = path.read_bytes()
    except OSError as error:
        raise DamagedFile(path, str(error.strerror or error), REWRITE) from error
    # A power cut may leave zeros where the last line was to be.
    lines = content.rstrip(b"\0").split(b"\n")
    rows = []
    damaged = []
    for number, line in enumerate(lines[:-1], 1):
        row = read_object(line)
        if row is None:
            damaged.append(number)
        else:
            rows.append(row)
    return rows, damaged


def read_object(line: bytes | str) -> dict[str, Any] | None:
    """The JSON object of a line; None for anything else."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if isinstance(row, dict):
        return row
    return None
