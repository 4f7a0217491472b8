"""Rows of a task as the data set that TRL trains on, in which every value comes back as it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from critique_rl.tasks.row import Row

if TYPE_CHECKING:
    from datasets import Dataset


def training_set(rows: Sequence[Row]) -> Dataset:
    """Build TRL's data set.

    Arrow keeps one type per column: it refuses numbers beside texts, and objects gain the keys of
    each other. Columns that it would change are kept as JSON and read when a row is.
    """
    from datasets import Dataset

    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    changed = [name for name, values in columns.items() if not _comes_back(values)]
    for name in changed:
        columns[name] = [json.dumps(value) for value in columns[name]]
    dataset = Dataset.from_dict(columns)
    if changed:
        dataset.set_transform(partial(_read_json, names=changed))
    return dataset


def _comes_back(values: list[Any]) -> bool:
    """True where a column of a data set gives these values back, with their types."""
    import pyarrow as pa
    from datasets import Dataset

    if all(isinstance(value, str) for value in values):
        return True
    try:
        stored = Dataset.from_dict({"column": values})["column"][:]
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return False
    return _as_json(stored) == _as_json(values)


def _as_json(values: Any) -> str:
    # An object has no order of its keys; 1, 1.0 and "1" differ in JSON.
    return json.dumps(values, sort_keys=True, default=repr)


def _read_json(batch: dict[str, list[Any]], names: Sequence[str]) -> dict[str, list[Any]]:
    """A batch as `datasets` hands it out, its columns of JSON read."""
    read = dict(batch)
    for name in names:
        if name in read:
            read[name] = [json.loads(text) for text in read[name]]
    return read
