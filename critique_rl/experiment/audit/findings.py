"""What a check reads, and what it says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from critique_rl.experiment.audit.estimand import Estimand, RunEvaluation
from critique_rl.experiment.audit.logs import RunLog
from critique_rl.experiment.audit.mapping import LogMapping

FOUND = "found"
CLEAR = "clear"
UNKNOWN_STATUS = "unknown"
MOST_PLACES = 6
"""Rows that a finding names."""


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    check: str
    status: str
    """`FOUND`, `CLEAR` or `UNKNOWN_STATUS`."""
    says: str
    """One sentence; why, where nothing is known."""
    places: tuple[str, ...] = ()
    """Rows that show it: run, file and line, or what differs."""


@dataclass(frozen=True)
class Audited:
    """What the checks read."""

    logs: Sequence[RunLog]
    evaluations: Sequence[RunEvaluation]
    estimand: Estimand
    mapping: LogMapping

    @property
    def arms(self) -> dict[str, list[RunLog]]:
        """Arm -> its runs."""
        arms: dict[str, list[RunLog]] = {}
        for log in self.logs:
            arms.setdefault(log.arm, []).append(log)
        return arms


def fault(check: str, says: str, places: Iterable[str]) -> Finding:
    """A finding with the first of its places."""
    listed = list(places)
    shown = listed[:MOST_PLACES]
    more = len(listed) - len(shown)
    if more:
        shown.append(f"and {more} more")
    return Finding(check, FOUND, says, tuple(shown))


def clear(check: str, says: str) -> Finding:
    """A check that saw nothing."""
    return Finding(check, CLEAR, says)


def unknown(check: str, says: str) -> Finding:
    """A check that could not be made, and why."""
    return Finding(check, UNKNOWN_STATUS, says)


def per_arm(values: Mapping[str, object]) -> list[str]:
    """A line per arm."""
    return [f"{arm}: {value}" for arm, value in values.items()]
