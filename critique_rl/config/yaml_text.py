"""YAML that people write -> plain data: mappings, lists, texts, numbers, true, false and null.

Stricter than YAML: a key stands once in its mapping, a tag of Python means nothing, an alias may
not multiply the file, and dates are texts. `<<` merges mappings; explicit keys beat merged ones.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from critique_rl.config.checks import ConfigError

MOST_CHARACTERS = 400_000
"""Our longest pipeline has 4,000. The reader takes about a second for 100,000."""
MOST_DEPTH = 40
"""Mappings and lists inside each other, aliases followed."""
MOST_NODES = 100_000
"""Keys and values, each alias counted as what it stands for."""
MERGE_TAG = "tag:yaml.org,2002:merge"
VALUE_TAG = "tag:yaml.org,2002:value"
TIMESTAMP_TAG = "tag:yaml.org,2002:timestamp"
FLOAT_TAG = "tag:yaml.org,2002:float"
POWER_OF_TEN = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]{1,4}")
PLAIN_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge", "value")
)
LONGEST_SIGN = 3
SHOWN = 60
"""Characters of a key that an error shows."""


class _Loader(yaml.SafeLoader):
    """SafeLoader to which 2026-01-31 is text, and 5e-5 a number."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != TIMESTAMP_TAG]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# YAML 1.2 has it so. To PyYAML, which reads 1.1, only 5.0e-5 is a number, and 5e-5 a text.
_Loader.add_implicit_resolver(FLOAT_TAG, POWER_OF_TEN, list("-+.0123456789"))


def read_yaml(text: str, where: str) -> Any:
    """Read one YAML document.

    Args:
        text: The document.
        where: The file or the option, with which messages begin.

    Returns:
        Plain data. An empty document is None.

    Raises:
        ConfigError: No YAML, a key that stands twice (with both lines), a tag, too much of
            anything, or a number that is none.
    """
    if len(text) > MOST_CHARACTERS:
        raise ConfigError(
            f"{where}: got {len(text)} characters, expected at most {MOST_CHARACTERS}; "
            "is this a file of settings?"
        )
    try:
        _check_depth(text, where)
        loader = _Loader(text)
        try:
            return _read_document(loader, where)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        # Not with its cause, which quotes the line, and with it a key that was pasted there.
        raise ConfigError(f"{where} is not YAML: {_words(error)}") from None
    except yaml.YAMLError as error:
        # A character that YAML does not have: the words come in several lines.
        words = " ".join(str(error).split())
        raise ConfigError(f"{where} is not YAML: {words}") from error
    except RecursionError as error:
        raise ConfigError(f"{where}: it is nested too deeply to be read") from error


def _read_document(loader: yaml.SafeLoader, where: str) -> Any:
    """Raises ConfigError for nodes that `read_yaml` refuses, and YAMLError for no YAML."""
    root = loader.get_single_node()
    if root is None:
        return None
    _measure(root, {}, where)
    for node in _nodes(root):
        _check_tag(node, where)
        if isinstance(node, yaml.MappingNode):
            _check_keys_differ(loader, node, where)
    try:
        return loader.construct_document(root)
    # int("0b") and its like; PyYAML lets through the errors of Python.
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError) as error:
        raise ConfigError(f"{where}: a value cannot be read ({error}); put it in quotes") from error


def _check_depth(text: str, where: str) -> None:
    """Refuse deep nesting before a recursive reader meets it. Raises ConfigError."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MOST_DEPTH:
            raise _too_deep(where, event.start_mark.line)  # type: ignore[union-attr]


def _too_deep(where: str, line: int) -> ConfigError:
    return ConfigError(
        f"{where}, line {line + 1}: nested deeper than {MOST_DEPTH} mappings and lists; "
        "a pipeline needs less than ten"
    )


def _measure(
    node: yaml.Node, sizes: dict[int, tuple[int, int]], where: str, height: int = 0
) -> tuple[int, int]:
    """(nodes, depth) of a tree with its aliases followed.

    Raises:
        ConfigError: An alias that holds itself, or one of the two is too large.
    """
    key = id(node)
    if key in sizes:
        size, depth = sizes[key]
        if size == 0:
            raise ConfigError(
                f"{where}, line {node.start_mark.line + 1}: an alias stands inside its own anchor; "
                "write the value out"
            )
        return size, depth
    # 0: it is being measured, so whoever meets it again is inside of it.
    sizes[key] = (0, 0)
    if height > MOST_DEPTH:
        raise _too_deep(where, node.start_mark.line)
    size = 1
    depth = 1
    for child in _children(node):
        child_size, child_depth = _measure(child, sizes, where, height + 1)
        size += child_size
        depth = max(depth, child_depth + 1)
    if size > MOST_NODES:
        raise ConfigError(
            f"{where}, line {node.start_mark.line + 1}: with its aliases it has more than "
            f"{MOST_NODES} values; write out what is meant"
        )
    if depth > MOST_DEPTH:
        raise _too_deep(where, node.start_mark.line)
    sizes[key] = (size, depth)
    return size, depth


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _nodes(root: yaml.Node) -> Iterator[yaml.Node]:
    """Every node once."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        waiting += _children(node)


def _check_tag(node: yaml.Node, where: str) -> None:
    """Raises ConfigError for a tag such as !!python/name, and does not show it: it may be a key."""
    if node.tag not in PLAIN_TAGS:
        raise ConfigError(
            f"{where}, line {node.start_mark.line + 1}: got a tag such as !!python, expected none: "
            "settings are texts, numbers, lists and mappings"
        )


def _check_keys_differ(loader: yaml.SafeLoader, node: yaml.MappingNode, where: str) -> None:
    """Raises ConfigError for a key that stands twice, or is a list or a mapping."""
    lines: dict[Any, int] = {}
    for key_node, _ in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(
                f"{where}, line {line}: a key is a list or a mapping, expected a text"
            )
        key = _key(loader, key_node)
        if key in lines:
            raise ConfigError(
                f"{where}: the key {key_node.value[:SHOWN]!r} stands twice in one mapping, "
                f"in line {lines[key]} and in line {line}; remove one of them"
            )
        lines[key] = line


def _key(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> tuple[str, Any]:
    """What a key is compared by: 1 and 0x1 are the same, 1 and "1" are not."""
    if node.tag in (MERGE_TAG, VALUE_TAG):
        return node.tag, node.value
    try:
        value = loader.construct_object(node)
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError):
        # Building the document tells.
        return node.tag, node.value
    if isinstance(value, float) and math.isnan(value):
        return node.tag, "nan"
    # Python's dict takes 1, 1.0 and True for one key.
    if isinstance(value, bool | int | float):
        return "number", value
    return type(value).__name__, value


def _words(error: yaml.MarkedYAMLError) -> str:
    """PyYAML's error in one line, with its place."""
    words = " ".join(str(error.problem or error.context or "it cannot be read").split())
    mark = error.problem_mark or error.context_mark
    advice = ""
    if "\\t" in words:
        advice = "; indent by spaces, never by tabs"
    # PyYAML quotes names of the text too. What it expected is one sign.
    words = re.sub(r"(['\"])(.*?)\1", _shown_token, words)
    if mark is None:
        return words
    return f"line {mark.line + 1}, column {mark.column + 1}: {words}{advice}"


def _shown_token(quoted: re.Match[str]) -> str:
    """What PyYAML quotes: a sign, the end of something, or a text of the user's."""
    text = quoted[2]
    if re.fullmatch("<[a-z ]+>", text):
        return f"the {text[1:-1].replace('stream', 'text')}"
    return quoted[0] if len(text) <= LONGEST_SIGN else "..."


def find_in(
    value: Any, is_wanted: Callable[[Any], bool], path: str = ""
) -> Iterator[tuple[str, Any]]:
    """(dotted place, value) of the values inside of plain data that are wanted."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from find_in(item, is_wanted, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from find_in(item, is_wanted, f"{path}[{place}]")
    elif is_wanted(value):
        yield path.removeprefix("."), value
