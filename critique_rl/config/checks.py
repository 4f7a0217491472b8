"""Checks of what a user wrote: unknown keys, wrong types, numbers out of range. All raise
ConfigError.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any


class ConfigError(ValueError):
    """A pipeline file (or an override) that cannot be used: says what was got, what was expected
    and what to do.
    """


def suggest(got: str, known: Iterable[str]) -> str:
    """A tail for error messages: what was probably meant, and all there is."""
    known = sorted(known)
    near = difflib.get_close_matches(got, known, n=1, cutoff=0.5)
    return (f"did you mean {near[0]!r}? " if near else "") + f"known: {', '.join(known)}"


def check_keys(got: Iterable[str], known: Iterable[str], where: str) -> None:
    """ConfigError at the first unknown key."""
    known = tuple(known)
    for key in got:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}; {suggest(str(key), known)}")


def _free(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: got {value!r}, expected a mapping")
    return dict(value)


def read_section(cls: type, value: Any, where: str) -> Any:
    """A mapping as read from YAML -> the dataclass, with its keys, numbers and whatever it checks
    itself.
    """
    check_keys(_free(value, where), (f.name for f in fields(cls)), where)
    for f in fields(cls):
        if f.default is MISSING and f.default_factory is MISSING and f.name not in value:
            raise ConfigError(f"{where}: no {f.name!r}; it has no default")
    for f in fields(cls):
        if f.name in value:
            _check_number(value[f.name], f.type, f"{where}.{f.name}")
    try:
        return cls(
            **{key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _check_number(value: Any, annotation: str, where: str) -> None:
    wanted = annotation.split(" | ")[0]
    optional = annotation.endswith("None")
    numbers = {"int": int, "float": (int, float), "str": str}
    if (
        wanted in numbers
        and not (optional and value is None)
        and (not isinstance(value, numbers[wanted]) or isinstance(value, bool))
    ):
        raise ConfigError(f"{where}: got {value!r}, expected {annotation}")
