"""What a mapping file says of logs: names of columns, and what logs do not hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from critique_rl.config.checks import ConfigError, suggest
from critique_rl.config.durable_files import read_yaml
from critique_rl.experiment.audit.columns import NAMES

KEYS = ("columns", "right", "reported", "tried", "settings")


@dataclass(frozen=True)
class LogMapping:
    """What a mapping file says."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Key of `NAMES` -> the log's column; "" for none."""
    right: float | None = None
    """The least reward of a right answer; None: the greater of two rewards."""
    reported: Mapping[str, int] = field(default_factory=dict)
    """Arm -> the step whose evaluation its makers report."""
    tried: Mapping[str, int] = field(default_factory=dict)
    """Arm -> settings that its makers tried, such as learning rates."""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Arm -> settings that its logs do not hold."""


def read_mapping(path: Path) -> LogMapping:
    """Read a mapping file.

    Raises:
        ConfigError: a key, or a name of a column, is unknown; a value is of another kind.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: got no file there, expected a mapping in YAML")
    raw = read_yaml(path, "put it right")
    _check_names(raw, KEYS, str(path))
    parts = _pairs(raw, path)
    _check_names(parts["columns"], NAMES, f"{path}: columns")
    for name, column in parts["columns"].items():
        if not isinstance(column, str):
            raise ConfigError(f"{path}: columns.{name}: got {column!r}, expected a column's name")
    for key in ("reported", "tried"):
        _check_whole(parts[key], f"{path}: {key}")
    for arm, values in parts["settings"].items():
        if not isinstance(values, Mapping):
            raise ConfigError(f"{path}: settings.{arm}: got {values!r}, expected name: value pairs")
    right = raw.get("right")
    is_number = isinstance(right, int | float)
    is_switch = isinstance(right, bool)
    if right is not None and (is_switch or not is_number):
        raise ConfigError(f"{path}: right: got {right!r}, expected the least reward of a right one")
    return LogMapping(right=right, **parts)


def _pairs(raw: Mapping[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """The keys that hold name: value pairs.

    Raises:
        ConfigError: one holds something else.
    """
    parts = {}
    for key in KEYS:
        if key == "right":
            continue
        part = raw.get(key) or {}
        if not isinstance(part, Mapping):
            raise ConfigError(f"{path}: {key}: got {part!r}, expected name: value pairs")
        parts[key] = dict(part)
    return parts


def _check_whole(values: Mapping[str, Any], place: str) -> None:
    """Refuse a value that is no whole number.

    Raises:
        ConfigError: as told.
    """
    for arm, value in values.items():
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not is_whole:
            raise ConfigError(f"{place}.{arm}: got {value!r}, expected a whole number")


def _check_names(names: Iterable[str], known: Iterable[str], place: str) -> None:
    """Refuse a name that is not known.

    Raises:
        ConfigError: as told, with the likeliest one.
    """
    for name in names:
        if name not in known:
            raise ConfigError(f"{place}: got {name!r}; {suggest(name, known)}")


def check_arms(mapping: LogMapping, arms: Iterable[str]) -> None:
    """Refuse a mapping that speaks of other arms.

    Raises:
        ConfigError: as told.
    """
    for key in ("reported", "tried", "settings"):
        _check_names(getattr(mapping, key), list(arms), f"mapping, {key}")
