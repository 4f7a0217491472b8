"""Groups of a log: the answers to one problem at one step.

Axis N: answers, in the order of the log.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from critique_rl.experiment.audit.logs import Answers


def groups_of(part: Answers) -> list[np.ndarray]:
    """Places (N,) of each group's answers, of two at least, in the log's order."""
    if not len(part):
        return []
    problems = int(part.problem_N.max()) + 1
    steps_N = part.step_N.astype(np.int64)
    keys_N = steps_N * problems + part.problem_N
    order_N = np.argsort(keys_N, kind="stable")
    sorted_N = keys_N[order_N]
    starts = np.flatnonzero(np.diff(sorted_N)) + 1
    pieces = np.split(order_N, starts)
    return [rows_N for rows_N in pieces if len(rows_N) > 1]


def group_size(part: Answers) -> int:
    """The commonest size of a group; 1 where every answer stands alone."""
    sizes = Counter(len(rows_N) for rows_N in groups_of(part))
    if not sizes:
        return 1
    [(size, _)] = sizes.most_common(1)
    return size
