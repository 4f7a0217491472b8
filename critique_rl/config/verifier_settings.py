"""Which settings of `task.verifier` can change a verdict.

`workers` and `memory_gb` say what judging may use of a machine: another number makes no answer
right or wrong. `deadline` and `step_deadline` do at the edge, for an answer that takes too long is
wrong, and one without its turn is unscored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OPERATIONAL = ("workers", "memory_gb")
"""Options that change no verdict."""


def verdict_settings(verifier: Any) -> Any:
    """A `task.verifier` without the options that change no verdict; a kind alone is its name."""
    if not isinstance(verifier, Mapping):
        return verifier
    settings = {name: value for name, value in verifier.items() if name not in OPERATIONAL}
    if list(settings) == ["kind"]:
        return settings["kind"]
    return settings


def with_verdict_settings(task: Any) -> Any:
    """A `task:` section as plain data, with `verdict_settings` of its verifier."""
    if not isinstance(task, Mapping) or "verifier" not in task:
        return task
    return {**task, "verifier": verdict_settings(task["verifier"])}
