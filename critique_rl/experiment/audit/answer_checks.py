"""Checks of whether the logged answers are what they seem.

Axis N: answers of one part of a run, in the order of the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from critique_rl.experiment.audit.estimand import HELD_OUT, RunEvaluation
from critique_rl.experiment.audit.findings import Audited, Finding, clear, fault, unknown
from critique_rl.experiment.audit.groups import group_size, groups_of
from critique_rl.experiment.audit.logs import UNKNOWN, Answers, RunLog

MUCH_DEAD = 0.5
"""Share of groups without a signal from which on it is a finding."""
MUCH_CUT = 0.05
"""Share of answers that were cut off and count as wrong from which on it is a finding."""
MOSTLY = 0.5
"""Share of groups that are two equal halves from which on all were logged twice."""


def dead_groups(audited: Audited) -> Finding:
    """Groups whose rewards all agree teach nothing."""
    shares = []
    places = []
    for log in audited.logs:
        groups = groups_of(log.train)
        if not groups:
            continue
        values_N = log.train.reward_N
        if np.isnan(values_N).all():
            values_N = log.train.right_N
        dead = []
        for rows_N in groups:
            if len(set(values_N[rows_N].tolist())) == 1:
                dead.append(rows_N)
        share = len(dead) / len(groups)
        shares.append(share)
        if share > MUCH_DEAD:
            first = int(dead[0][0])
            place = log.place(log.train, first)
            places.append(f"{log.name}: {share:.0%}, such as {place}")
    if not shares:
        return unknown("dead groups", "no training groups of several answers are logged")
    if places:
        says = "more than half of the groups have equal rewards, and teach nothing"
        return fault("dead groups", says, places)
    says = f"at most {max(shares):.0%} of a run's groups have equal rewards"
    return clear("dead groups", says)


def truncation(audited: Audited) -> Finding:
    """Answers that were cut off and count as wrong."""
    is_known = False
    places = []
    for log in audited.logs:
        for what, part in (("training", log.train), ("held-out", log.evaluation)):
            cut_N = _cut_off(part)
            if cut_N is None:
                continue
            is_known = True
            wrong = np.flatnonzero(cut_N & (part.right_N == 0))
            share = len(wrong) / len(part)
            if len(wrong) > 1 and share >= MUCH_CUT:
                first = int(wrong[0])
                place = log.place(part, first)
                places.append(f"{log.name}, {what}: {share:.0%}, such as {place}")
    if places:
        says = "answers that were cut off count as wrong: a higher limit might change the verdict"
        return fault("truncation", says, places)
    if not is_known:
        return unknown("truncation", "the logs do not say which answers were cut off")
    return clear("truncation", "under 5% of each run's answers were cut off and are wrong")


def _cut_off(part: Answers) -> np.ndarray | None:
    """(N,) bool: answers that were cut off; None where that is unknown."""
    if not len(part):
        return None
    if (part.truncated_N != UNKNOWN).any():
        cut_N: np.ndarray = part.truncated_N == 1
        return cut_N
    if (part.tokens_N == UNKNOWN).any():
        return None
    # Without a mark: many answers of the greatest length hint at a limit.
    longest_N: np.ndarray = part.tokens_N == part.tokens_N.max()
    if int(longest_N.sum()) < 2:
        return None
    return longest_N


def duplicates(audited: Audited) -> Finding:
    """Rows that were logged twice."""
    places = []
    for log in audited.logs:
        for part in (log.train, log.evaluation):
            place = _first_copy(log, part)
            if place:
                places.append(f"{log.name}: {place}")
    if places:
        return fault("duplicates", "rows were logged twice, and count twice", places)
    return clear("duplicates", "no group was logged twice")


def _first_copy(log: RunLog, part: Answers) -> str:
    """The first group that was logged twice; "" where there is none.

    Answers of a group may be equal. So only groups over the usual size count, whose answers come
    again in the same order, or that hold a copy beside a complete group; and groups of a log of
    which most are two equal halves.
    """
    groups = []
    for rows_N in groups_of(part):
        if len(set(part.text_N[rows_N].tolist())) > 1:
            groups.append(rows_N)
    if not groups:
        return ""
    copies, size = _copies(part, groups)
    if not copies:
        return ""
    rows_N = copies[0]
    again = min(size, len(rows_N) - 1)
    first = log.place(part, int(rows_N[0]))
    second = log.place(part, int(rows_N[again]))
    number = len(copies)
    return f"{number} of {len(groups)} groups, such as {first} and {second}"


def _copies(part: Answers, groups: Sequence[np.ndarray]) -> tuple[list[np.ndarray], int]:
    """Groups (N,) that were logged twice, and after how many answers copies begin."""
    usual = group_size(part)
    copies = []
    halved = []
    half = usual // 2
    for rows_N in groups:
        texts_N = part.text_N[rows_N]
        if _holds_copy(texts_N, usual):
            copies.append(rows_N)
        if usual % 2 == 0 and _repeats(texts_N, half):
            halved.append(rows_N)
    # All groups twice: then the usual size is that of copies.
    if not copies and len(halved) > MOSTLY * len(groups):
        return halved, half
    return copies, usual


def _holds_copy(texts_N: np.ndarray, usual: int) -> bool:
    """Whether a group over the usual size holds answers (N,) twice."""
    size = len(texts_N)
    if size <= usual:
        return False
    if size % usual == 0:
        return _repeats(texts_N, usual)
    return len(set(texts_N.tolist())) < size


def _repeats(texts_N: np.ndarray, size: int) -> bool:
    """Whether texts (N,) are one sequence of this size, again and again."""
    if len(texts_N) % size or len(texts_N) == size:
        return False
    rows = texts_N.reshape(-1, size)
    return bool((rows == rows[0]).all())


def leaks(audited: Audited) -> Finding:
    """Critiques that give the answer away."""
    critiques = sum(log.leaks.critiques for log in audited.logs)
    checked = sum(log.leaks.checked for log in audited.logs)
    leaked = sum(log.leaks.leaked for log in audited.logs)
    if not critiques:
        return clear("leaks", "no critiques are logged")
    if not checked:
        says = "critiques are logged without the answers that they might give away"
        return unknown("leaks", says)
    if not leaked:
        return clear("leaks", f"none of {checked} critiques gives the answer away")
    places = []
    for log in audited.logs:
        for place in log.leaks.places:
            places.append(f"{log.name}: {place}")
    return fault("leaks", f"{leaked} of {checked} critiques give the answer away", places)


def overlap(audited: Audited) -> Finding:
    """Held-out problems that were trained on."""
    trained: dict[int | str, str] = {}
    held_out: dict[int | str, str] = {}
    for log in audited.logs:
        _add_places(trained, log, log.train)
        _add_places(held_out, log, log.evaluation)
    if not trained or not held_out:
        return unknown("overlap", "the logs do not hold both training and held-out answers")
    places = []
    for key, place in held_out.items():
        if key in trained:
            places.append(f"{place} was trained on: {trained[key]}")
    if places:
        says = f"{len(places)} of {len(held_out)} held-out problems were trained on"
        return fault("overlap", says, places)
    return clear("overlap", "no held-out problem was trained on")


def _add_places(places: dict[int | str, str], log: RunLog, part: Answers) -> None:
    """Add where each problem of a part first stands, by its prompt, or by its id without one."""
    codes, rows = np.unique(part.problem_N, return_index=True)
    for code, row in zip(codes.tolist(), rows.tolist(), strict=True):
        problem = log.problems[code]
        key: int | str = problem.id
        if problem.prompt is not None:
            key = problem.prompt
        place = log.place(part, row)
        places.setdefault(key, f"{log.name} {place}")


def checkpoints(audited: Audited) -> Finding:
    """The last policy is judged, and not the best of several on the held-out problems."""
    if audited.estimand.kind != HELD_OUT:
        return unknown("checkpoints", "no held-out answers are compared")
    places = []
    for run in audited.evaluations:
        reported = audited.mapping.reported.get(run.log.arm)
        place = _early_policy(run, reported)
        if place:
            places.append(f"{run.log.name}: {place}")
    if places:
        says = "a policy before the last was judged, which may have been chosen by these problems"
        return fault("checkpoints", says, places)
    if not all(len(run.log.train) for run in audited.evaluations):
        says = "the logs do not say how long the judged policies were trained"
        return unknown("checkpoints", says)
    return clear("checkpoints", "the last policy of every run is judged")


def _early_policy(run: RunEvaluation, reported: int | None) -> str:
    """How the judged policy is not the last one; "" where it is, as far as the log says."""
    levels = _levels(run.log.evaluation)
    last = max(levels)
    best = max(levels, key=lambda step: levels[step])
    if reported is not None and reported == best and reported != last:
        gain = levels[best] - levels[last]
        return (
            f"step {reported} is reported, the best of {len(levels)} evaluations; "
            f"the last has {gain:.2f} less"
        )
    if not len(run.log.train) or run.step < 0:
        return ""
    trained = int(run.log.train.step_N.max())
    if trained - run.step > _interval(levels, trained):
        return f"evaluated at step {run.step} of {trained}"
    return ""


def _levels(part: Answers) -> dict[int, float]:
    """Step -> share of right answers among the judged ones."""
    levels = {}
    for step in np.unique(part.step_N).tolist():
        right_N = part.right_N[part.step_N == step]
        judged_N = right_N[right_N != UNKNOWN]
        levels[step] = 0.0
        if len(judged_N):
            levels[step] = float(judged_N.mean())
    return levels


def _interval(levels: Mapping[int, float], trained: int) -> int:
    """Steps between evaluations: the last may be that far from the end."""
    steps = sorted(levels)
    if len(steps) > 1:
        gaps = []
        for left, right in pairwise(steps):
            gaps.append(right - left)
        return max(gaps)
    # One evaluation belongs to the end; trainers count from 0 or from 1.
    return max(1, trained // 100)
