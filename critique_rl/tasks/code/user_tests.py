"""The user's rows whose tests can be run, and why the others cannot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from critique_rl.config.checks import ConfigError
from critique_rl.config.terminal import say
from critique_rl.tasks.code.tests_column import NoTests
from critique_rl.tasks.code.verifier import Columns, row_tests
from critique_rl.tasks.row import Row
from critique_rl.tasks.user_data import UserData


def with_tests(data: UserData, verifier: Any) -> UserData:
    """The rows whose tests can be read; the others are left out, counted and told.

    Args:
        data: The user's rows.
        verifier: `task.verifier`, whose options name the columns.

    Raises:
        ConfigError: Where no row is left to train on.
    """
    columns = _columns(verifier)
    left_out = Counter(data.left_out)
    splits: dict[str, list[Row]] = {}
    for split, rows in data.splits.items():
        splits[split] = []
        for row in rows:
            try:
                row_tests(row, columns)
            except NoTests as error:
                left_out[f"tests: {error}"] += 1
            else:
                splits[split].append(row)
    kept = UserData(splits, dict(left_out))
    if left_out != Counter(data.left_out):
        say(kept.summary())
    if not splits["train"]:
        raise ConfigError(
            f"task.verifier tests: no row has tests that can be run ({kept.summary()})"
        )
    return kept


def _columns(verifier: Any) -> Columns:
    options = verifier if isinstance(verifier, Mapping) else {}
    names = {field.name for field in fields(Columns)}
    chosen = {name: str(value) for name, value in options.items() if name in names}
    return Columns(**chosen)
