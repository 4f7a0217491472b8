"""A preset's paper, equation and stated differences, read from its docstring.

The docstrings are passed in: this room lies below the one that defines presets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

PARAGRAPH = re.compile(r"\n\s*\n")
DIFFERENCES = re.compile(r"Differences[^:]*: ")
REFERENCE = re.compile(r"[Tt]hose of `(\w+)`")
"""A preset whose differences another one shares."""


@dataclass(frozen=True)
class PresetSource:
    """Where a preset comes from."""

    source: str
    """Paper and equation, without a full stop."""
    differences: str
    """Where it differs from them, "" if nothing is stated."""


def preset_source(name: str, docstrings: Mapping[str, str]) -> PresetSource:
    """What the docstring of a preset says of its source.

    Args:
        name: the preset.
        docstrings: preset -> docstring, indentation removed. A preset without one has no source.
    """
    paragraphs = PARAGRAPH.split(docstrings.get(name, ""))
    lines = [" ".join(paragraph.split()) for paragraph in paragraphs]
    differences = _stated(lines)
    for other in dict.fromkeys(REFERENCE.findall(differences)):
        # A reader of the paper cannot look the other preset up.
        if other != name and other in docstrings:
            inherited = preset_source(other, docstrings).differences
            differences += f" Those of {other}: {inherited}"
    return PresetSource(_plain(lines[0]).rstrip(".:"), _plain(differences))


def _stated(lines: list[str]) -> str:
    for line in lines:
        match = DIFFERENCES.match(line)
        if match:
            return line[match.end() :]
    return ""


def _plain(text: str) -> str:
    """Text without the marks of code."""
    return text.replace("`", "")
