"""The user's rows whose tests can be run, and why the others cannot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from critique_rl.config.checks import ConfigError, suggest
from critique_rl.config.terminal import say
from critique_rl.tasks.code.tests_column import NoTests, read_tests
from critique_rl.tasks.code.verifier import Columns, row_tests
from critique_rl.tasks.row import Row
from critique_rl.tasks.user_data import UserData

TESTS = ("tests", "test_list", "test", "private_test_cases", "test_cases", "input_output")
"""Names of columns that may hold the tests of the reward, the likeliest first."""
OTHERS = {
    "public_tests": ("public_tests", "public_test_cases", "example_tests"),
    "entry_point": ("entry_point", "fn_name", "function_name"),
    "starter_code": ("starter_code", "prompt_code"),
    "test_setup": ("test_setup_code", "test_imports", "setup"),
}
"""Options of the verifier -> names of columns that may be meant."""


def with_tests(data: UserData, verifier: Any) -> UserData:
    """The rows whose tests can be read; the others are left out, counted and told.

    Args:
        data: The user's rows.
        verifier: `task.verifier`, whose options name the columns.

    Raises:
        ConfigError: Where no row is left to train on.
    """
    columns = _columns(verifier)
    _check_columns(data, verifier)
    left_out = Counter(data.left_out)
    splits: dict[str, list[Row]] = {}
    for split, rows in data.splits.items():
        kept_rows = []
        for row in rows:
            try:
                row_tests(row, columns)
            except NoTests as error:
                reason = f"tests: {error}"
                left_out[reason] += 1
            else:
                kept_rows.append(row)
        splits[split] = kept_rows
    kept = UserData(splits, dict(left_out))
    if left_out != Counter(data.left_out):
        say(kept.summary())
    if not splits["train"]:
        raise ConfigError(
            f"task.verifier tests: no row has tests that can be run ({kept.summary()})"
        )
    return kept


def refuse_without_tests(rows: Sequence[Row], columns: Columns) -> None:
    """Refuse a task whose rows have no tests in these columns.

    Raises:
        ConfigError: The first row has none.
    """
    for row in rows[:1]:
        try:
            row_tests(row, columns)
        except NoTests as error:
            raise ConfigError(
                f"task.verifier tests: {error}; got rows with the columns "
                f"{', '.join(sorted(row))}, expected tests: name their column, or use another "
                "verifier"
            ) from error


def _check_columns(data: UserData, verifier: Any) -> None:
    """Raise ConfigError for a column that the user names and no row has."""
    known = {name for rows in data.splits.values() for row in rows for name in row}
    options = verifier if isinstance(verifier, Mapping) else {}
    for field in fields(Columns):
        column = options.get(field.name)
        if known and column is not None and column not in known:
            advice = suggest(str(column), sorted(known))
            raise ConfigError(f"task.verifier.{field.name}: no column {column!r}; {advice}")


def _columns(verifier: Any) -> Columns:
    options = verifier if isinstance(verifier, Mapping) else {}
    names = {field.name for field in fields(Columns)}
    chosen = {name: str(value) for name, value in options.items() if name in names}
    return Columns(**chosen)


def guess_columns(rows: Sequence[Row]) -> dict[str, str]:
    """The options of `verifier: {kind: tests}` for rows as they were read.

    Args:
        rows: A few rows of the source.

    Returns:
        Option -> column, where its name is not the default; "tests" is always there. {} where no
        column of a known name holds tests that can be read.
    """
    names = [name for row in rows[:1] for name in row]
    tests = next((name for name in TESTS if _holds_tests(rows, name)), "")
    if not tests:
        return {}
    chosen = {"tests": tests}
    for option, candidates in OTHERS.items():
        column = next((name for name in candidates if name in names and name != tests), "")
        if column and column != getattr(Columns, option):
            chosen[option] = column
    return chosen


def unread_tests(rows: Sequence[Row]) -> str:
    """Why no test of a column of a known name can be run, in words; "" where there is none."""
    for name in TESTS:
        reasons = Counter[str]()
        for row in rows:
            try:
                read_tests(row.get(name), "f")
            except NoTests as error:
                reasons[str(error)] += 1
        for reason, _ in reasons.most_common(1):
            return f"the column {name!r} holds no tests that can be run: {reason}"
    return ""


def _holds_tests(rows: Sequence[Row], name: str) -> bool:
    """Whether a column holds tests in most rows that have something in it."""
    readable = 0
    others = 0
    for row in rows:
        if row.get(name):
            # A name for results as JSON, which another column may hold.
            try:
                readable += bool(read_tests(row[name], "f"))
            except NoTests:
                others += 1
    return readable > others
