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
SCALARS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "None": (type(None),),
}
"""Part of a field's annotation -> types that a YAML value of that field may have."""


TYPE_WORDS = {
    "int": "int (a whole number)",
    "float": "float (a number)",
    "str": "str (a text)",
    "bool": "true or false",
    "Literal": "true or false",
    "dict": "a mapping",
    "list": "a list",
    "None": "null",
    "NoneType": "null",
}
"""Word of an annotation -> it, with what users call its values."""


class ConfigError(ValueError):
    """A pipeline file, an override or an option that cannot be used.

    The message says what was got, what was expected and what to do.
    """


def suggest(got: str, known: Iterable[str]) -> str:
    """The tail of an error message: the nearest known name, if any, then all known names."""
    names = sorted(known)
    matches = difflib.get_close_matches(got, names, n=1, cutoff=0.5)
    hint = ""
    if matches:
        nearest = matches[0]
        hint = f"did you mean {nearest!r}? "
    listed = ", ".join(names)
    return f"{hint}known: {listed}"


def type_words(word: str) -> str:
    """A word of a field's annotation as users call its values."""
    return TYPE_WORDS.get(word, word)


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
            suggestion = suggest(str(key), names)
            raise ConfigError(f"{where}: unknown key {key!r}; {suggestion}")


def read_mapping(value: Any, where: str) -> dict[str, Any]:
    """A section with free keys as a dict. Raises ConfigError for anything but a mapping."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: got {value!r}, expected a mapping")
    for key in value:
        if not isinstance(key, str):
            raise ConfigError(
                f"{where}: got the key {key!r} ({type(key).__name__}), expected a text; "
                "put it in quotes"
            )
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
    names = [field.name for field in known]
    check_keys(section, names, where)
    for field in known:
        has_default = field.default is not MISSING or field.default_factory is not MISSING
        if not has_default and field.name not in section:
            raise ConfigError(f"{where}: no {field.name!r}; it has no default")
    for field in known:
        name = field.name
        if name in section:
            # Annotations are texts: every module begins with `from __future__ import annotations`.
            annotation = str(field.type)
            _check_scalar(section[name], annotation, f"{where}.{name}")
    values = {key: _as_field(item) for key, item in section.items()}
    try:
        return cls(**values)
    # Sections such as the endpoint of an api critic check their ranges in __post_init__.
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _as_field(item: Any) -> Any:
    """Frozen sections hold tuples, so that they can be hashed; YAML reads lists."""
    if isinstance(item, list):
        return tuple(item)
    return item


def _check_scalar(value: Any, annotation: str, where: str) -> None:
    """Raise ConfigError for a value of another type than the field's annotation."""
    if annotation.startswith(("Mapping[", "dict[")):
        read_mapping(value, where)
        return
    if annotation == "tuple[int, ...]":
        is_list = isinstance(value, list | tuple)
        if not is_list or not all(_is_scalar(item, (int,)) for item in value):
            raise ConfigError(
                f"{where}: got {value!r}, expected a list of whole numbers, such as [1, 4]"
            )
        return
    expected: list[type] = []
    for part in annotation.split(" | "):
        if part not in SCALARS:
            return
        expected += SCALARS[part]
    if not _is_scalar(value, tuple(expected)):
        words = " or ".join(type_words(part) for part in annotation.split(" | "))
        raise ConfigError(f"{where}: got {value!r}, expected {words}")


def _is_scalar(value: Any, types: tuple[type, ...]) -> bool:
    # bool is a subclass of int, and YAML reads `yes` and `on` as True.
    if isinstance(value, bool):
        return bool in types
    return isinstance(value, types)
