"""Checks of a user's pipeline file: unknown keys, wrong types, missing sections.

Every check raises ConfigError, whose message says what was got, what was expected and what to do.
Left out: ranges that depend on other sections, which `arms` and `pipeline_file` check.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Section = TypeVar("Section", bound="DataclassInstance")
SCALARS: dict[str, type | tuple[type, ...]] = {"int": int, "float": (int, float), "str": str}
"""First word of a field's annotation -> types that a YAML value of that field may have."""


class ConfigError(ValueError):
    """A pipeline file, an override or an option that cannot be used.

    The message says what was got, what was expected and what to do.
    """


def suggest(got: str, known: Iterable[str]) -> str:
    """The tail of an error message: the nearest known name, if any, then all known names."""
    names = sorted(known)
    matches = difflib.get_close_matches(got, names, n=1, cutoff=0.5)
    hint = f"did you mean {matches[0]!r}? " if matches else ""
    return f"{hint}known: {', '.join(names)}"


def check_keys(got: Iterable[str], known: Iterable[str], where: str) -> None:
    """Refuse unknown keys.

    Args:
        got: Keys that the user wrote.
        known: Keys that have a meaning there.
        where: The place in the file, with which the message begins.

    Raises:
        ConfigError: At the first unknown key, with the nearest known one.
    """
    names = tuple(known)
    for key in got:
        if key not in names:
            # YAML keys may be numbers, which difflib cannot compare.
            raise ConfigError(f"{where}: unknown key {key!r}; {suggest(str(key), names)}")


def read_mapping(value: Any, where: str) -> dict[str, Any]:
    """A section with free keys as a dict. Raises ConfigError for anything but a mapping."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: got {value!r}, expected a mapping")
    return dict(value)


def read_section(cls: type[Section], value: Any, where: str) -> Section:
    """Build a config dataclass from a mapping as read from YAML.

    Args:
        cls: The dataclass of the section; its fields are the known keys.
        value: The mapping.
        where: The place in the file, with which messages begin.

    Raises:
        ConfigError: For unknown keys, missing keys without a default, numbers and texts of the
            wrong type, and values that the dataclass itself refuses.
    """
    section = read_mapping(value, where)
    known = fields(cls)
    check_keys(section, (field.name for field in known), where)
    for field in known:
        has_default = field.default is not MISSING or field.default_factory is not MISSING
        if not has_default and field.name not in section:
            raise ConfigError(f"{where}: no {field.name!r}; it has no default")
    for field in known:
        if field.name in section:
            # Annotations are texts: every module begins with `from __future__ import annotations`.
            _check_scalar(section[field.name], str(field.type), f"{where}.{field.name}")
    try:
        return cls(**{key: _as_field(item) for key, item in section.items()})
    # Sections such as the endpoint of an api critic check their ranges in __post_init__.
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _as_field(item: Any) -> Any:
    """Frozen sections hold tuples, so that they can be hashed; YAML reads lists."""
    return tuple(item) if isinstance(item, list) else item


def _check_scalar(value: Any, annotation: str, where: str) -> None:
    """Raise ConfigError for a number or a text of another type than the field's annotation."""
    expected = SCALARS.get(annotation.split(" | ")[0])
    is_optional = annotation.endswith("None")
    if expected is None or (is_optional and value is None):
        return
    # bool is a subclass of int, and YAML reads `yes` and `on` as True.
    if not isinstance(value, expected) or isinstance(value, bool):
        raise ConfigError(f"{where}: got {value!r}, expected {annotation}")
