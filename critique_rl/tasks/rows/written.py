"""Rows of JSON and CSV files with every cell as it is written.

The loader of `datasets` guesses types: it turns 2021-05-01 into a time, 12345678901234567890 into a
float, 007 into 7, and NA into an empty cell. Here numbers of JSON are `cells.WrittenNumber`, and
cells of CSV are texts, None where they are empty. Lines are read one by one, anew at each pass, so
that a large file needs no memory; only a JSON document is held.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from critique_rl.config.checks import ConfigError
from critique_rl.tasks.rows.cells import WrittenNumber

LONGEST_CELL = 2**31 - 1
"""csv refuses longer cells than its own limit of 131,072 characters."""
FORMS = 'a list of objects, one object a line, or {"data": [...]}'


@dataclass(frozen=True)
class WrittenFile:
    """A text file of rows."""

    path: str
    """Where it is now."""
    kind: str
    """json or csv."""
    compression: str | None = None
    """As fsspec names it, such as gzip."""
    key: str = ""
    """Of a JSON document {"train": [...], "test": [...]}: the key to read, if it is there."""
    delimiter: str = ""
    """Between the cells of a line; "": by the header."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """Read the file from its beginning.

        Raises:
            ConfigError: For a line or a document that is not of its format.
        """
        read = _csv_rows if self.kind == "csv" else _json_rows
        yield from read(self)

    @contextmanager
    def open(self) -> Iterator[TextIO]:
        """The file as text, without a byte order mark."""
        import fsspec

        # newline: csv finds the ends of lines itself, because a quoted cell may hold some.
        file = fsspec.open(
            self.path, "rt", compression=self.compression, encoding="utf-8-sig", newline=""
        )
        with file as opened:
            yield opened


def _json_rows(file: WrittenFile) -> Iterator[dict[str, Any]]:
    """Raises ConfigError for a broken line or document."""
    with file.open() as opened:
        document = _first_document(opened)
        if document is not None:
            yield from _document_rows(document, file.key)
            return
        opened.seek(0)
        for number, line in enumerate(opened, start=1):
            if line.strip():
                yield _line_row(line, number)


def _first_document(opened: TextIO) -> Any:
    """The value of a file that is one JSON document; None for a file of lines.

    Raises:
        ConfigError: For a list that is no JSON.
    """
    first = next((line for line in opened if line.strip()), "")
    more = next((line for line in opened if line.strip()), "")
    is_list = first.lstrip().startswith("[")
    if more and not is_list:
        try:
            parse_json(first)
            return None
        # The first line of a document that is written over several lines.
        except ValueError:
            pass
    opened.seek(0)
    text = opened.read()
    try:
        document = parse_json(text)
    except ValueError as error:
        if is_list:
            raise ConfigError(f"it is no JSON ({error})") from error
        # A file of lines whose first is broken: the reader of lines says so.
        return None
    is_document = is_list or bool(more) or _is_columns(document) or bool(_tables(document))
    if is_document:
        return document
    return None


def parse_json(text: str) -> Any:
    """Read JSON with its numbers as they are written, and NaN as an empty cell.

    Raises:
        ValueError: For a text that is no JSON, or nested too deeply.
    """
    try:
        return json.loads(
            text, parse_int=WrittenNumber, parse_float=WrittenNumber, parse_constant=_constant
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _constant(name: str) -> WrittenNumber | None:
    if name == "NaN":
        return None
    return WrittenNumber(name)


def _line_row(line: str, number: int) -> dict[str, Any]:
    """Raises ConfigError for a line that is no object."""
    try:
        row = parse_json(line)
    except ValueError as error:
        raise ConfigError(f"line {number} is no JSON ({error})") from error
    if not isinstance(row, dict):
        raise ConfigError(f"line {number}: got {line.strip()[:60]!r}, expected an object")
    return row


def _is_columns(document: Any) -> bool:
    """True for an object of lists."""
    if not isinstance(document, dict) or not document:
        return False
    return all(isinstance(column, list) for column in document.values())


def _tables(document: Any) -> list[str]:
    """Keys of lists of objects."""
    if not isinstance(document, dict):
        return []
    return [key for key, value in document.items() if value and _is_table(value)]


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def _document_rows(document: Any, key: str) -> list[dict[str, Any]]:
    """Rows of a document: a list of objects, an object with one, or an object of columns.

    Raises:
        ConfigError: For a document of another form.
    """
    if _is_table(document):
        return list(document)
    tables = _tables(document)
    if key in tables:
        return list(document[key])
    if len(tables) == 1:
        return list(document[tables[0]])
    if not tables and _is_columns(document):
        return _column_rows(document)
    shown = json.dumps(document)[:60]
    raise ConfigError(f"it begins with {shown!r}; expected {FORMS}")


def _column_rows(document: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Rows of an object of columns. Raises ConfigError for columns of several lengths."""
    lengths = {name: len(column) for name, column in document.items()}
    if len(set(lengths.values())) > 1:
        raise ConfigError(f"its columns have different lengths: {lengths}; expected {FORMS}")
    cells = zip(*document.values(), strict=True)
    return [dict(zip(document, row, strict=True)) for row in cells]


def _csv_rows(file: WrittenFile) -> Iterator[dict[str, Any]]:
    """Raises ConfigError for a line that has more cells than the header."""
    csv.field_size_limit(LONGEST_CELL)
    with file.open() as opened:
        header = opened.readline()
        opened.seek(0)
        delimiter = file.delimiter or _delimiter(header)
        # strict: a quote that nobody closes would else swallow the rest of the file.
        reader = csv.reader(opened, delimiter=delimiter, strict=True)
        try:
            names = _column_names(next(reader, []))
            for cells in reader:
                # csv gives a blank line as no cells.
                if cells:
                    yield _csv_row(names, cells, reader.line_num)
        except csv.Error as error:
            raise ConfigError(
                f"line {reader.line_num}: {error}; put a cell that holds a quote into quotes, "
                'and write the quote twice: "say ""yes"""'
            ) from error


def _delimiter(header: str) -> str:
    """The comma; of a header without one, the semicolon or tab that it has."""
    others = (sign for sign in ";\t" if sign in header and "," not in header)
    return next(others, ",")


def _column_names(header: Sequence[str]) -> list[str]:
    """Names without a repeat and without an empty one, as pandas gives them."""
    seen: Counter[str] = Counter()
    names = []
    for place, cell in enumerate(header):
        name = cell or f"Unnamed: {place}"
        count = seen[name]
        seen[name] += 1
        names.append(f"{name}.{count}" if count else name)
    return names


def _csv_row(names: Sequence[str], cells: Sequence[str], line: int) -> dict[str, Any]:
    """Raises ConfigError for more cells than names."""
    if any(cells[len(names) :]):
        raise ConfigError(
            f"line {line}: got {len(cells)} cells, expected {len(names)}; "
            "put a cell that holds a comma into double quotes"
        )
    row: dict[str, Any] = dict.fromkeys(names)
    for name, cell in zip(names, cells, strict=False):
        row[name] = cell or None
    return row


class WrittenSource:
    """The rows of one or more files, and the names of all their columns."""

    def __init__(self, files: Sequence[WrittenFile]):
        """Read all files once. Raises ConfigError for a file that holds nothing."""
        self.files = files
        names: dict[str, None] = {}
        for row in self._rows():
            names.update(dict.fromkeys(row))
        if not names:
            raise ConfigError("it holds nothing")
        self.column_names = list(names)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Rows with all columns; None where a line of JSON lacks one."""
        for row in self._rows():
            yield dict.fromkeys(self.column_names) | row

    def _rows(self) -> Iterator[dict[str, Any]]:
        for file in self.files:
            yield from file.rows()
