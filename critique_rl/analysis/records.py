"""Frozen dataclasses as JSON objects, and back.

A file's keys are the fields' names, in the order of the fields. Keys without a field are kept in
`extra` and written after the others, so that other programs may add keys to a file. Left out: a
schema library. Field names and a reader for each nested record are all that these files need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, TypeVar

from critique_rl.config.checks import ConfigError

EXTRA = "extra"
"""The field that holds the keys of a file that have no field: `field(default_factory=dict)`."""
OPTIONAL = {"optional": True}
"""Metadata of a field whose key is left out of the file where the value is None."""
Record = TypeVar("Record")
Reader = Callable[[Any], Any]
"""Turns the JSON value of one field into the field's value."""


def known_fields(kind: Any) -> dict[str, Field[Any]]:
    """Key -> field of a dataclass, of those that have a key in the file."""
    known = {item.name: item for item in fields(kind)}
    known.pop(EXTRA, None)
    return known


def to_json(value: Any) -> Any:
    """Turn a record, a mapping, a sequence or a plain value into what `json.dumps` takes.

    Args:
        value: a dataclass instance, or whatever its fields hold.

    Returns:
        For a dataclass a dict: its fields in order, then the keys of its `extra`.
    """
    if is_dataclass(value):
        return _object(value)
    if isinstance(value, Mapping):
        return {key: to_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(inner) for inner in value]
    return value


def _object(record: Any) -> dict[str, Any]:
    data = {}
    for name, item in known_fields(record).items():
        value = getattr(record, name)
        left_out = value is None and item.metadata == OPTIONAL
        if not left_out:
            data[name] = to_json(value)
    # Last, so that the known keys of a file keep their order. A record of a file that nobody
    # extends has no such field.
    data |= getattr(record, EXTRA, {})
    return data


def read_record(kind: type[Record], data: Any, **readers: Reader) -> Record:
    """Build a record from the JSON object that `to_json` made of one.

    Args:
        kind: a dataclass with a field `extra`.
        data: the JSON object.
        readers: field -> reader of its value. A null stays None, without a call of the reader.

    Returns:
        The record. Absent keys have the field's default, unknown keys are in `extra`.

    Raises:
        ConfigError: `data` is no object, or lacks a key whose field has no default.
    """
    names = known_fields(kind)
    expected = f"expected an object with {', '.join(names)}"
    if not isinstance(data, Mapping):
        raise ConfigError(f"{kind.__name__}: got {data!r}, {expected}")
    missing = [name for name in _required_names(kind) if name not in data]
    if missing:
        absent = ", ".join(missing)
        raise ConfigError(f"{kind.__name__}: got no {absent}, {expected}: write the file again")
    values: dict[str, Any] = {EXTRA: {}}
    for key, value in data.items():
        if key not in names:
            values[EXTRA][key] = value
        elif key in readers and value is not None:
            values[key] = readers[key](value)
        else:
            values[key] = value
    return kind(**values)


def _required_names(kind: Any) -> list[str]:
    """Fields without a default."""
    names = []
    for name, item in known_fields(kind).items():
        if item.default is MISSING and item.default_factory is MISSING:
            names.append(name)
    return names


def each(read: Reader) -> Reader:
    """A reader of a JSON array.

    Args:
        read: a reader of one item.

    Returns:
        A reader that makes a tuple of the items.
    """

    def read_items(items: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(read(item) for item in items)

    return read_items


def by_name(read: Reader) -> Reader:
    """A reader of a JSON object whose keys are names, such as those of arms.

    Args:
        read: a reader of one value.

    Returns:
        A reader that makes a dict of the values.
    """

    def read_values(items: Mapping[str, Any]) -> dict[str, Any]:
        return {name: read(item) for name, item in items.items()}

    return read_values
