"""Which numbers the settings of a pool may have, in a pipeline and in Python alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from critique_rl.config.checks import ConfigError
from critique_rl.config.ranges import Range

SECTION = "task.verifier"
"""Begins the messages."""
DAY = 86_400
RANGES = {
    # In less not even an interpreter that is loaded answers on a busy machine.
    "deadline": ("seconds, ", Range(0.01, DAY)),
    "step_deadline": ("seconds, ", Range(0.02, 7 * DAY)),
    # An interpreter with this package holds less than the least.
    "memory_gb": ("gigabytes, ", Range(0.05, 100_000)),
    "workers": ("a number of processes, ", Range(1, 1024)),
    "threshold": ("", Range(-1e300, 1e300)),
    "cpu": ("seconds of a processor, ", Range(1, DAY)),
    "program_memory_gb": ("gigabytes, ", Range(0.1, 1000)),
}
"""Setting -> (its unit, its range)."""
NULLABLE = ("step_deadline", "workers")
"""Settings whose null has a meaning."""
LONGEST_SHOWN = 80
"""Characters of a wrong value that a message shows."""
TRIES = 2
"""How often an answer is tried that takes too long."""


def check_settings(settings: Mapping[str, Any]) -> None:
    """Check the numbers among a verifier's settings.

    Args:
        settings: Names of `RANGES` -> values; other names are not looked at.

    Raises:
        ConfigError: A value that is no number, or out of its range, or a step too short for the
            two tries of one answer.
    """
    for name, (unit, allowed) in RANGES.items():
        if name not in settings or (settings[name] is None and name in NULLABLE):
            continue
        value = settings[name]
        types = int if name == "workers" else int | float
        # bool is a subclass of int.
        is_number = isinstance(value, types) and not isinstance(value, bool)
        if not is_number or not allowed.holds(value):
            raise ConfigError(
                f"{SECTION}.{name}: got {_shown(value)}, expected {unit}{allowed.words()}"
            )
    _check_two_tries(settings.get("deadline"), settings.get("step_deadline"))


def _shown(value: Any) -> str:
    # repr() of an integer of thousands of digits raises.
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a number over 2**63"
    return repr(value)[:LONGEST_SHOWN]


def _check_two_tries(deadline: float | None, step_deadline: float | None) -> None:
    """Raises ConfigError for a step in which an answer cannot take too long twice."""
    if deadline is None or step_deadline is None or step_deadline >= TRIES * deadline:
        return
    raise ConfigError(
        f"{SECTION}.step_deadline: got {step_deadline!r}, expected at least {TRIES * deadline:g}, "
        f"twice the deadline of {deadline:g} seconds, for an answer that takes too long is tried "
        "again: raise step_deadline or lower deadline"
    )
