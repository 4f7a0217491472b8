"""Checks of whether the logged answers are what they seem.

Axis N: answers of one part of a run, in the order of the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from critique_rl.config.checks import ConfigError
from critique_rl.experiment.audit.estimand import HELD_OUT, RunEvaluation
from critique_rl.experiment.audit.findings import Audited, Finding, clear, fault, per_arm, unknown
from critique_rl.experiment.audit.groups import group_size, groups_of
from critique_rl.experiment.audit.logs import Answers, RunLog
from critique_rl.experiment.audit.mapping import LogMapping
from critique_rl.experiment.audit.values import UNKNOWN

MUCH_DEAD = 0.5
"""Share of groups without a signal from which on it is a finding."""
MUCH_OPEN = 0.01
"""Share of answers that were not judged from which on it is a finding."""
MUCH_CUT = 0.05
"""Share of answers that were cut off and count as wrong from which on it is a finding."""
FAR_OVER = 1.5
"""The least ratio of a limit's length to the median, where answers have no mark of it."""
SOME = 0.1
"""Share of groups that two files hold from which on they are copies."""
TWICE = 1.9
"""Answers of a step, over those of the usual step, from which on it was logged twice."""
MOSTLY = 0.5
"""Share of groups that are two equal halves from which on all were logged twice."""


def dead_groups(audited: Audited) -> Finding:
    """Groups whose rewards all agree teach nothing."""
    shares = []
    places = []
    for log in audited.logs:
        groups = groups_of(log.train)
        values_N = log.train.reward_N
        if np.isnan(values_N).all():
            is_open_N = log.train.right_N == UNKNOWN
            values_N = np.where(is_open_N, np.nan, log.train.right_N)
        judged = 0
        dead = []
        for rows_N in groups:
            known = _known_values(values_N[rows_N])
            if len(known) < 2:
                continue
            judged += 1
            if len(set(known)) == 1:
                dead.append(rows_N)
        if not judged:
            continue
        share = len(dead) / judged
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


def _known_values(values_N: np.ndarray) -> list[float]:
    """Of values (N,) those that are numbers."""
    is_known_N = ~np.isnan(values_N)
    known: list[float] = values_N[is_known_N].tolist()
    return known


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
    # Without a mark: many answers of one length well over the usual hint at a limit.
    most = int(part.tokens_N.max())
    longest_N: np.ndarray = part.tokens_N == most
    usual = float(np.median(part.tokens_N))
    is_limit = most > FAR_OVER * usual
    if int(longest_N.sum()) < 2 or not is_limit:
        return None
    return longest_N


def judged(audited: Audited) -> Finding:
    """Answers that count, and were not judged."""
    places = []
    for run in audited.evaluations:
        open_N = run.answers.right_N == UNKNOWN
        share = float(open_N.mean())
        if share > MUCH_OPEN:
            log = run.log
            first = int(np.flatnonzero(open_N)[0])
            place = log.place(run.answers, first)
            places.append(f"{log.name}: {share:.0%}, such as {place}")
    if places:
        says = "answers without a reward or a verdict are left out: which ones may not be chance"
        return fault("judged", says, places)
    return clear("judged", "nearly all answers that count have a reward or a verdict")


def duplicates(audited: Audited) -> Finding:
    """Rows, or steps, that were logged twice."""
    places = []
    for log in audited.logs:
        for part in (log.train, log.evaluation):
            place = _first_copy(log, part)
            if not place:
                place = _two_files(log, part)
            if not place:
                place = _long_steps(part)
            if place:
                places.append(f"{log.name}: {place}")
    if places:
        return fault("duplicates", "rows or steps were logged twice, and count twice", places)
    return clear("duplicates", "no group and no step was logged twice")


def _two_files(log: RunLog, part: Answers) -> str:
    """Groups that two files hold with the same answers; "" for hardly any."""
    groups = groups_of(part)
    copies = []
    for rows_N in groups:
        files_N = part.file_N[rows_N]
        texts = set()
        names = np.unique(files_N)
        for name in names.tolist():
            places_N = rows_N[files_N == name]
            sequence = part.text_N[places_N].tolist()
            texts.add(tuple(sequence))
        if len(names) > 1 and len(texts) == 1:
            copies.append(rows_N)
    number = len(copies)
    if number < 2 or number < SOME * len(groups):
        return ""
    rows_N = copies[0]
    first = log.place(part, int(rows_N[0]))
    second = log.place(part, int(rows_N[-1]))
    return f"{number} problems stand in two files, such as {first} and {second}"


def _long_steps(part: Answers) -> str:
    """Steps with twice the answers of the usual step, as after a restart; "" for none."""
    steps, counts = np.unique(part.step_N, return_counts=True)
    if len(steps) < 3:
        return ""
    usual = float(np.median(counts))
    long = steps[counts >= TWICE * usual]
    number = len(long)
    if not number or number > MOSTLY * len(steps):
        return ""
    first = long[0]
    return f"{number} of {len(steps)} steps have twice the answers, such as step {first}"


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
    alike = 0
    for rows_N in groups:
        texts = part.text_N[rows_N].tolist()
        repeats = len(texts) - len(set(texts))
        if len(rows_N) <= usual and repeats:
            alike += 1
    are_unlike = alike <= MUCH_OPEN * len(groups)
    for rows_N in groups:
        texts_N = part.text_N[rows_N]
        if _holds_copy(texts_N, usual, are_unlike):
            copies.append(rows_N)
        if usual % 2 == 0 and _repeats(texts_N, half):
            halved.append(rows_N)
    # All groups twice: then the usual size is that of copies.
    if not copies and len(halved) > MOSTLY * len(groups):
        return halved, half
    return copies, usual


def _holds_copy(texts_N: np.ndarray, usual: int, are_unlike: bool) -> bool:
    """Whether a group over the usual size holds answers (N,) twice.

    Args:
        texts_N: digests of its answers.
        usual: the usual size.
        are_unlike: whether answers of the usual groups hardly ever come twice.
    """
    size = len(texts_N)
    if size <= usual:
        return False
    if size % usual == 0:
        return _repeats(texts_N, usual)
    # In a complete group of the others no answer comes twice, or this says nothing.
    return are_unlike and len(set(texts_N.tolist())) < size


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
        return unknown("leaks", "no critiques are logged")
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
    steps = {}
    for run in audited.evaluations:
        name = run.log.name
        steps[name] = run.step
        place = _reported(run, audited.mapping) or _early_policy(run)
        if place:
            places.append(f"{run.log.name}: {place}")
    if places:
        says = "a policy before the last was judged, which may have been chosen by these problems"
        return fault("checkpoints", says, places)
    if len(set(steps.values())) > 1:
        says = "policies of other steps are compared"
        return fault("checkpoints", says, per_arm(steps))
    open_runs = []
    for run in audited.evaluations:
        is_known = len(run.log.train) > 0 and run.step >= 0
        if not is_known:
            open_runs.append(run)
    if open_runs:
        says = "the logs do not say how long the judged policies were trained"
        return unknown("checkpoints", says)
    return clear("checkpoints", "the last policy of every run is judged")


def _reported(run: RunEvaluation, mapping: LogMapping) -> str:
    """That another step than the last is reported; "" where it is not, or not known.

    Raises:
        ConfigError: the run has no evaluation of that step.
    """
    step = mapping.reported.get(run.log.arm)
    levels = _levels(run.log.evaluation)
    last = max(levels)
    if step is None or step == last:
        return ""
    if step not in levels:
        listed = ", ".join(map(str, sorted(levels)))
        raise ConfigError(
            f"mapping, reported.{run.log.arm}: got step {step}, expected one of {listed}, at which "
            f"{run.log.name} was evaluated"
        )
    gain = levels[step] - levels[last]
    rank = "one"
    best = max(levels.values())
    if levels[step] == best:
        rank = "the best"
    number = len(levels)
    return f"step {step} is reported, {rank} of {number} evaluations; {gain:+.2f} on the last"


def _early_policy(run: RunEvaluation) -> str:
    """How the judged policy is not the last one; "" where it is, as far as the log says."""
    if not len(run.log.train) or run.step < 0:
        return ""
    levels = _levels(run.log.evaluation)
    trained = int(run.log.train.step_N.max())
    if trained - run.step >= _interval(levels, trained):
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
    """Steps between evaluations: from the last one the end is not so far."""
    steps = sorted(levels)
    if len(steps) > 1:
        gaps = []
        for left, right in pairwise(steps):
            gaps.append(right - left)
        return max(gaps)
    # One evaluation belongs to the end; trainers count from 0 or from 1.
    return max(2, trained // 100)
