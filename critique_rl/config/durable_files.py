"""Text, JSON, YAML and JSONL files that a crash cannot leave half-written.

A file is written beside its place, flushed to disk and renamed, so that readers see the old file or
the new one. Left out: SQLite files and checkpoints, whose rooms have rules of their own.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step; folders above it are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process number keeps two writers of one file apart; the last rename wins.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        # Without it a power cut may keep the rename and lose the text: an empty file.
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file. Raises ValueError for NaN and infinity, which are no JSON."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of `write_json` that holds an object.

    Returns:
        The object; {} without a file.
    """
    if not path.exists():
        return {}
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def write_yaml(path: Path, value: Any) -> None:
    """Replace a YAML file; keys keep their order."""
    write_text(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def append_jsonl(path: Path, row: dict[str, Any]) -> None:
    """Add one object as a line. `read_jsonl` skips a line that a crash cut short."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a file of `append_jsonl`.

    Returns:
        The objects of all complete lines; [] without a file.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    # A last line without its newline was cut short by a crash.
    return [json.loads(line) for line in lines if line.endswith("\n")]
