"""Held-out problems one by one: masses before training and at the end, a mean over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from critique_rl.analysis.flow.classes import CLASSES
from critique_rl.analysis.flow.series import FEWEST_EFFECTIVE, Series


@dataclass(frozen=True)
class ProblemChange:
    """One problem's masses."""

    id: str
    before: Mapping[str, float]
    """Class -> mass before training."""
    after: Mapping[str, float]
    """Class -> mass at the end."""


@dataclass(frozen=True)
class ProblemChanges:
    """The problems of a family under one arm."""

    changes: tuple[ProblemChange, ...]
    hidden: int
    """Problems left out because some seed has too few effective samples at the end."""


def problem_changes(runs: Mapping[int, Series], family: str) -> ProblemChanges:
    """The changes of a family's problems that can be shown.

    Args:
        runs: Seed -> series; all hold the same problems.
        family: The family.
    """
    first = next(iter(runs.values()))
    changes = []
    hidden = 0
    for problem, group in first.families.items():
        if group != family:
            continue
        if _smallest_sample(runs, problem) < FEWEST_EFFECTIVE:
            hidden += 1
            continue
        before = _mean_masses(runs, problem, 0)
        after = _mean_masses(runs, problem, -1)
        change = ProblemChange(problem, before, after)
        changes.append(change)
    return ProblemChanges(tuple(changes), hidden)


def _smallest_sample(runs: Mapping[int, Series], problem: str) -> float:
    """The least effective sample size of any seed at the end; infinite where masses are exact."""
    smallest = math.inf
    for run in runs.values():
        last = run.points[-1]
        size = last.sample_size.get(problem, math.inf)
        smallest = min(smallest, size)
    return smallest


def _mean_masses(runs: Mapping[int, Series], problem: str, place: int) -> dict[str, float]:
    means = dict.fromkeys(CLASSES, 0.0)
    for run in runs.values():
        masses = run.points[place].problems[problem]
        for kind in CLASSES:
            means[kind] += masses[kind] / len(runs)
    return means
