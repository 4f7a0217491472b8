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


def to_json(value: Any) -> Any:
    """Turn a record, a mapping, a sequence or a plain value into what `json.dumps` takes.

    Args:
        value: a dataclass instance, or whatever its fields hold.

    Returns:
        For a dataclass a dict: its fields in order, then the keys of its `extra`.
    """
    if isinstance(value, Mapping):
        return {key: to_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(inner) for inner in value]
    if not is_dataclass(value):
        return value
    data = {}
    for item in fields(value):
        inner = getattr(value, item.name)
        left_out = inner is None and item.metadata == OPTIONAL
        # `extra` may be inherited or stand first: its keys are merged last, so that the known keys
        # of a file keep their order.
        if item.name != EXTRA and not left_out:
            data[item.name] = to_json(inner)
    return data | getattr(value, EXTRA, {})


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
    known = [item for item in fields(kind) if item.name != EXTRA]  # type: ignore[arg-type]
    names = [item.name for item in known]
    if not isinstance(data, Mapping):
        raise ConfigError(
            f"{kind.__name__}: got {data!r}, expected an object with {', '.join(names)}"
        )
    missing = [item.name for item in known if _required(item) and item.name not in data]
    if missing:
        raise ConfigError(
            f"{kind.__name__}: got no {', '.join(missing)}, expected an object with "
            f"{', '.join(names)}: write the file again"
        )
    values = {name: data[name] for name in names if name in data}
    for name, read in readers.items():
        if values.get(name) is not None:
            values[name] = read(values[name])
    values[EXTRA] = {key: value for key, value in data.items() if key not in names}
    return kind(**values)


def _required(item: Field[Any]) -> bool:
    return item.default is MISSING and item.default_factory is MISSING


def each(read: Reader) -> Reader:
    """A reader of a JSON array: `read` for every item, as a tuple."""

    def read_all(items: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(read(item) for item in items)

    return read_all


def by_name(read: Reader) -> Reader:
    """A reader of a JSON object with names as keys: `read` for every value."""

    def read_all(items: Mapping[str, Any]) -> dict[str, Any]:
        return {name: read(item) for name, item in items.items()}

    return read_all
