"""Rows of the files that trainers log answers to: JSON lines, JSON, parquet and CSV."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from critique_rl.config.checks import ConfigError
from critique_rl.experiment.audit import trackio

NumberedRow = tuple[int, dict[str, Any]]
"""(line of a text file, or row of a table, from 1; the row)."""
LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
SUFFIXES = (*LINES, ".json", ".parquet", ".csv")
BATCH_ROWS = 1024
"""Rows of a parquet file in memory at a time."""
SHOWN = 60
"""Characters of a bad line in an error."""


def is_log(path: Path) -> bool:
    """Whether a file's name is that of a kind that can be read."""
    return path.name.lower().endswith(SUFFIXES)


def read_rows(path: Path) -> Iterator[NumberedRow]:
    """The rows of a file, one at a time.

    A last line that was cut off, as by a kill, is left out.

    Raises:
        ConfigError: the file is damaged, or of another kind.
    """
    if trackio.is_run(path):
        return trackio.read_run(path)
    name = path.name.lower()
    if name.endswith(LINES):
        return _json_lines(path)
    if name.endswith(".json"):
        return _json_table(path)
    if name.endswith(".parquet"):
        return _parquet_rows(path)
    if name.endswith(".csv"):
        return _csv_rows(path)
    raise ConfigError(f"{path}: got another kind of file, expected one of {', '.join(SUFFIXES)}")


def stem_of(name: str) -> str:
    """A file's name without the suffix of its kind; a folder's name as it is."""
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _json_lines(path: Path) -> Iterator[NumberedRow]:
    """Rows of JSON lines; raises ConfigError for a damaged one."""
    unpack: Any = open
    if path.name.lower().endswith(".gz"):
        unpack = gzip.open
    number = 0
    try:
        with unpack(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                row = _parse(path, number, line)
                if row is None:
                    return
                yield number, row
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ConfigError(
            f"{path}, after line {number}: got no readable gzip file ({error}): pack it anew"
        ) from error


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any] | None:
    """The object of a line; None for a last line that was cut off.

    Raises:
        ConfigError: the line is damaged.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        if not line.endswith(b"\n"):
            return None
        raise _damaged(path, number, line) from error
    if not isinstance(row, dict):
        raise _damaged(path, number, line)
    return row


def _damaged(path: Path, number: int, line: bytes) -> ConfigError:
    text = line.decode("utf-8", "replace").strip()
    if len(text) > SHOWN:
        text = text[:SHOWN] + "..."
    return ConfigError(
        f"{path}, line {number}: got {text!r}, expected a JSON object: mend or delete the line"
    )


def _json_table(path: Path) -> Iterator[NumberedRow]:
    """Rows of a list of objects, or of a table as wandb exports it: {"columns", "data"}.

    Another JSON file, such as one of settings, has none.

    Raises:
        ConfigError: the file is no JSON, or a row is of another form than the first.
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: got no JSON ({error}), expected a table: mend it") from error
    columns: Any = None
    if isinstance(content, dict):
        columns = content.get("columns")
        content = content.get("data")
        if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
            return
    if not isinstance(content, list) or not content:
        return
    kind: type = dict if columns is None else list
    if not isinstance(content[0], kind):
        return
    for number, row in enumerate(content, 1):
        if not isinstance(row, kind):
            raise ConfigError(f"{path}, row {number}: got {row!r}, expected one like the first")
        yield number, _object(path, number, columns, row)


def _object(path: Path, number: int, columns: list[str] | None, row: Any) -> dict[str, Any]:
    """A row as an object.

    Raises:
        ConfigError: it has not a value per column.
    """
    if columns is None:
        known: dict[str, Any] = row
        return known
    if len(row) != len(columns):
        raise ConfigError(
            f"{path}, row {number}: got {len(row)} values, expected {len(columns)}, one per column"
        )
    return dict(zip(columns, row, strict=True))


def _parquet_rows(path: Path) -> Iterator[NumberedRow]:
    """Rows of a parquet file; raises ConfigError for a damaged one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(
            f"{path}: got no readable parquet file ({error}): write it anew"
        ) from error


def _csv_rows(path: Path) -> Iterator[NumberedRow]:
    """Rows of a CSV file, cells as text; raises ConfigError for a damaged one."""
    csv.field_size_limit(1 << 30)
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise ConfigError(
                        f"{path}, line {reader.line_num}: got another number of cells than the "
                        f"header's {len(reader.fieldnames or ())}: mend the line"
                    )
                # Cells stay text: an answer "42" is no number to compare with "42.0".
                cells = {}
                for name, text in row.items():
                    cells[name] = text or None
                yield reader.line_num, cells
        except (csv.Error, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: got no readable CSV ({error}): write it anew") from error
