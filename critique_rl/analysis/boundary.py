"""Problems that arms newly solve and newly lose against the policy before training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from critique_rl.analysis.comparability import ComparableRuns
from critique_rl.analysis.comparison import Boundary
from critique_rl.analysis.evaluations import Evaluation, read_base
from critique_rl.config.run_folder import PipelineFolder

BASE_AGAIN = "base again"
"""The row of `Comparison.boundary` that compares the base with itself."""


def boundaries(folder: PipelineFolder, comparable: ComparableRuns) -> dict[str, Boundary] | None:
    """Problems that each arm newly solves and loses against the base.

    Args:
        folder: where a second evaluation of the base lies, if there is one.
        comparable: the arms' evaluations and the base's.

    Returns:
        Arm -> means over its runs, and `BASE_AGAIN` -> the base against itself with other samples.
        None without a base.

    Raises:
        ConfigError: the second evaluation of the base is damaged.
    """
    base = comparable.base
    if base is None:
        return None
    rows = {}
    # Where the base samples a problem's answer once in a hundred, two evaluations differ by chance.
    # The base against itself shows by how much.
    if folder.base_again.finished:
        again = read_base(folder, again=True)
        rows[BASE_AGAIN] = _boundary([again], base)
    for arm, runs in comparable.runs.items():
        if runs:
            rows[arm] = _boundary(list(runs.values()), base)
    return rows


def _boundary(evaluations: Sequence[Evaluation], base: Evaluation) -> Boundary:
    counts = [_crossings(evaluation, base) for evaluation in evaluations]
    solved, lost, problems = np.mean(counts, axis=0).tolist()
    return Boundary(solved, lost, problems)


def _crossings(evaluation: Evaluation, base: Evaluation) -> tuple[int, int, int]:
    """Problems newly solved, newly lost, and compared, in one evaluation.

    A problem is solved if at least one of its samples is right.
    """
    solved = 0
    lost = 0
    compared = 0
    for problem_id, before in base.problems.items():
        after = evaluation.problems.get(problem_id)
        # With fewer samples a problem is less likely to have a right one, so counts must match.
        if after is None or after.judged != before.judged:
            continue
        compared += 1
        if after.right and not before.right:
            solved += 1
        if before.right and not after.right:
            lost += 1
    return solved, lost, compared
