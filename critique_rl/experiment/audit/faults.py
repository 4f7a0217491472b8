"""What is missing or unfair in a comparison, as far as its logs show it.

Each check says `found`, with the rows that show it; `clear`; or `unknown`, where the logs do not
hold what it reads. A fault is never a proof that a result is wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from critique_rl.analysis.formats import ALIKE, short
from critique_rl.experiment.audit.columns import LogMapping
from critique_rl.experiment.audit.estimand import HELD_OUT, Estimand, RunEvaluation, run_cost
from critique_rl.experiment.audit.logs import UNKNOWN, Answers, RunLog

FOUND = "found"
CLEAR = "clear"
UNKNOWN_STATUS = "unknown"
MOST_PLACES = 5
"""Rows that a finding names."""
MUCH_DEAD = 0.5
"""Share of groups without a signal from which on it is a finding."""
MUCH_CUT = 0.05
"""Share of answers that were cut off and count as wrong from which on it is a finding."""
SAME_PROMPTS = 0.95
"""Share of the training problems of one seed that two arms have in common at least."""
ANCHORS = ("beta", "kl", "ref_model", "ema", "anchor")
"""Parts of the names of settings that hold a policy near another one."""
EFFORT = (
    "learning_rate",
    "lr",
    "batch_size",
    "num_generations",
    "rollout_n",
    "max_steps",
    "total_steps",
    "epochs",
    "temperature",
    "max_completion_length",
    "response_length",
    "model",
    "lora",
)
"""Parts of the names of settings that two arms should share."""
CONTROLS = {"retry": ("retry", "again"), "shuffled": ("shuffl", "random", "noise")}
"""Control arm -> parts of names that show it."""


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


def find_faults(audited: Audited) -> list[Finding]:
    """All checks, in the order of the page."""
    checks = (
        seeds,
        problems,
        prompts,
        samples,
        budgets,
        settings,
        anchors,
        tried,
        controls,
        dead_groups,
        truncation,
        duplicates,
        leaks,
        overlap,
        checkpoints,
    )
    return [check(audited) for check in checks]


# ---- are the arms alike? -------------------------------------------------------------------------


def seeds(audited: Audited) -> Finding:
    """Each arm has several seeds, and all have the same."""
    numbers = {arm: sorted(log.seed for log in logs) for arm, logs in audited.arms.items()}
    single = [arm for arm, of_arm in numbers.items() if len(of_arm) < 2]
    if single:
        says = f"one seed of {', '.join(single)}: it says nothing of other seeds"
        return Finding(
            "seeds", FOUND, says, tuple(f"{arm}: seed {numbers[arm][0]}" for arm in single)
        )
    if len({tuple(of_arm) for of_arm in numbers.values()}) > 1:
        places = tuple(f"{arm}: seeds {_listed(of_arm)}" for arm, of_arm in numbers.items())
        return Finding("seeds", FOUND, "arms have other seeds, so they are not paired", places)
    return Finding("seeds", CLEAR, f"{len(next(iter(numbers.values())))} seeds per arm")


def problems(audited: Audited) -> Finding:
    """All runs answer the same problems."""
    ids = {}
    for run in audited.evaluations:
        ids[run.log.name] = set(run.evaluation.problems)
    if audited.estimand.kind != HELD_OUT:
        return _same_training_problems(audited)
    shared = set.intersection(*ids.values()) if ids else set()
    union: set[str] = set().union(*ids.values())
    places = []
    for name, own_ids in ids.items():
        extra = sorted(own_ids - shared)
        if extra:
            places.append(f"{name}: {len(extra)} that others lack, such as {extra[0][:60]!r}")
    if places:
        says = f"{len(union - shared)} of {len(union)} held-out problems are not in all runs"
        return Finding("problems", FOUND, says, tuple(places[:MOST_PLACES]))
    return Finding("problems", CLEAR, f"the same {len(shared)} held-out problems in all runs")


def _same_training_problems(audited: Audited) -> Finding:
    by_seed: dict[int, list[RunLog]] = {}
    for log in audited.logs:
        by_seed.setdefault(log.seed, []).append(log)
    places = []
    for seed, logs in by_seed.items():
        names = [{problem.id for problem in log.problems} for log in logs]
        for log, own_ids in zip(logs[1:], names[1:], strict=True):
            share = len(own_ids & names[0]) / max(len(own_ids | names[0]), 1)
            if share < SAME_PROMPTS:
                places.append(f"seed {seed}: {log.arm} shares {share:.0%} with {logs[0].arm}")
    if places:
        says = "arms were trained on other problems"
        return Finding("problems", FOUND, says, tuple(places[:MOST_PLACES]))
    return Finding("problems", CLEAR, "arms of one seed were trained on the same problems")


def prompts(audited: Audited) -> Finding:
    """A problem's prompt is the same in all runs."""
    if not all(log.has_ids for log in audited.logs):
        says = "the logs have no ids of problems, so another prompt would be another problem"
        return Finding("prompts", UNKNOWN_STATUS, says)
    first: dict[str, int] = {}
    differing: dict[str, list[str]] = {}
    known = 0
    for log in audited.logs:
        for problem in log.problems:
            if problem.prompt is None:
                continue
            known += 1
            if first.setdefault(problem.id, problem.prompt) != problem.prompt:
                differing.setdefault(log.name, []).append(problem.id)
    if not known:
        return Finding("prompts", UNKNOWN_STATUS, "the logs have no prompts")
    if differing:
        places = []
        for name, ids in differing.items():
            places.append(f"{name}: {len(ids)} problems, such as {ids[0][:60]!r}")
        says = "the same problems were asked with other prompts"
        return Finding("prompts", FOUND, says, tuple(places[:MOST_PLACES]))
    return Finding("prompts", CLEAR, "each problem has one prompt in all runs")


def samples(audited: Audited) -> Finding:
    """As many answers per problem, and per group of training."""
    places = []
    evaluated = {}
    if audited.estimand.kind == HELD_OUT:
        for run in audited.evaluations:
            evaluated[run.log.name] = run.evaluation.protocol["samples"]
    trained = {}
    for log in audited.logs:
        if len(log.train):
            trained[log.name] = _group_size(log.train)
    for what, counts in (("per held-out problem", evaluated), ("per training group", trained)):
        if len(set(counts.values())) > 1:
            for name, count in counts.items():
                places.append(f"{name}: {count} answers {what}")
    if places:
        says = "runs took other numbers of answers"
        return Finding("samples", FOUND, says, tuple(places[: 2 * MOST_PLACES]))
    return Finding("samples", CLEAR, "as many answers per problem in all runs")


def budgets(audited: Audited) -> Finding:
    """Arms spent alike: tokens where they are logged, else answers."""
    if not all(len(log.train) for log in audited.logs):
        return Finding("budgets", UNKNOWN_STATUS, "not every run logged its training rollouts")
    costs = {arm: [run_cost(log) for log in logs] for arm, logs in audited.arms.items()}
    measure = "generated tokens"
    spent = {}
    for arm, of_arm in costs.items():
        spent[arm] = float(np.mean([cost.generated_tokens for cost in of_arm]))
    if not all(spent.values()):
        measure = "training answers (tokens are not logged)"
        spent = {}
        for arm, logs in audited.arms.items():
            spent[arm] = float(np.mean([len(log.train) for log in logs]))
    places = tuple(f"{arm}: {short(amount)}" for arm, amount in spent.items())
    ratio = max(spent.values()) / min(spent.values())
    if ratio > ALIKE:
        says = f"arms differ by {ratio:.2f} times in {measure}"
        return Finding("budgets", FOUND, says, places)
    return Finding("budgets", CLEAR, f"arms agree within 5% in {measure}", places)


def settings(audited: Audited) -> Finding:
    """Settings that arms should share."""
    return _compare_settings(audited, "settings", EFFORT, "arms were trained with other settings")


def anchors(audited: Audited) -> Finding:
    """What holds a policy near its start: a KL term, a reference, a moving average."""
    says = "arms have other anchors, which may be a part of the difference"
    return _compare_settings(audited, "anchors", ANCHORS, says)


def _compare_settings(audited: Audited, check: str, parts: Sequence[str], says: str) -> Finding:
    by_arm: dict[str, Mapping[str, Any]] = {}
    for arm, logs in audited.arms.items():
        by_arm[arm] = logs[0].settings
    if not all(by_arm.values()):
        return Finding(check, UNKNOWN_STATUS, "no settings lie beside the logs of every arm")
    names = set().union(*by_arm.values())
    places = []
    compared = 0
    for name in sorted(names):
        if not _names_part(name, parts):
            continue
        compared += 1
        values = {arm: of_arm.get(name) for arm, of_arm in by_arm.items()}
        if len({repr(value) for value in values.values()}) > 1:
            listed = ", ".join(f"{arm} {value}" for arm, value in values.items())
            places.append(f"{name}: {listed}")
    if places:
        return Finding(check, FOUND, says, tuple(places[: 2 * MOST_PLACES]))
    if not compared:
        return Finding(check, UNKNOWN_STATUS, "the settings beside the logs name none")
    return Finding(check, CLEAR, f"{compared} settings are the same in all arms")


def _names_part(name: str, parts: Sequence[str]) -> bool:
    """Whether a part stands in a setting's last word, as a word: "kl_coef", and not "tackle"."""
    last = name.rsplit(".", 1)[-1].lower()
    padded = f"_{last}_"
    return any(f"_{part}_" in padded or part == last for part in parts)


def tried(audited: Audited) -> Finding:
    """As many settings were tried for each arm."""
    counts = audited.mapping.tried
    if set(counts) < set(audited.arms):
        says = "logs do not hold what was tried before; the mapping file may say it (tried:)"
        return Finding("tried", UNKNOWN_STATUS, says)
    places = tuple(f"{arm}: {count}" for arm, count in counts.items())
    if len(set(counts.values())) > 1:
        return Finding("tried", FOUND, "more settings were tried for some arms", places)
    return Finding("tried", CLEAR, "as many settings were tried for each arm", places)


def controls(audited: Audited) -> Finding:
    """With critiques: an arm that tries again without words, and one with the words of others."""
    criticised = []
    for arm, logs in audited.arms.items():
        if any(log.leaks.critiques for log in logs):
            criticised.append(arm)
    if not criticised:
        return Finding("controls", CLEAR, "no arm logged critiques")
    missing = []
    for control, parts in CONTROLS.items():
        if not any(part in arm.lower() for arm in audited.arms for part in parts):
            missing.append(control)
    if missing:
        says = (
            f"{', '.join(criticised)} had critiques, and no arm is named {' or '.join(missing)}: "
            "trying again, or any words, might do the same"
        )
        return Finding("controls", FOUND, says, tuple(audited.arms))
    return Finding("controls", CLEAR, "arms that try again and that read other words are there")


# ---- are the answers what they seem? -------------------------------------------------------------


def dead_groups(audited: Audited) -> Finding:
    """Groups whose rewards all agree teach nothing."""
    shares = {}
    places = []
    for log in audited.logs:
        groups = _groups(log.train)
        if not groups:
            continue
        values_N = log.train.reward_N
        if np.isnan(values_N).all():
            values_N = log.train.right_N.astype(float)
        dead = [rows for rows in groups if len(set(values_N[rows].tolist())) == 1]
        shares[log.name] = len(dead) / len(groups)
        if shares[log.name] > MUCH_DEAD:
            place = log.place(log.train, int(dead[0][0]))
            places.append(f"{log.name}: {shares[log.name]:.0%}, such as {place}")
    if not shares:
        says = "no training groups of several answers are logged"
        return Finding("dead groups", UNKNOWN_STATUS, says)
    if places:
        says = "more than half of the groups have equal rewards, and teach nothing"
        return Finding("dead groups", FOUND, says, tuple(places[:MOST_PLACES]))
    says = f"at most {max(shares.values()):.0%} of a run's groups have equal rewards"
    return Finding("dead groups", CLEAR, says)


def truncation(audited: Audited) -> Finding:
    """Answers that were cut off and count as wrong."""
    known = False
    places = []
    for log in audited.logs:
        for what, part in (("training", log.train), ("held-out", log.evaluation)):
            cut_N = part.truncated_N == 1
            if len(part) and (part.truncated_N != UNKNOWN).any():
                known = True
            elif len(part) and (part.tokens_N != UNKNOWN).all():
                # Without a mark: many answers of the greatest length hint at a limit.
                cut_N = part.tokens_N == part.tokens_N.max()
                known = known or int(cut_N.sum()) > 1
            wrong = np.flatnonzero(cut_N & (part.right_N == 0))
            if len(part) and len(wrong) >= max(MUCH_CUT * len(part), 2):
                place = log.place(part, int(wrong[0]))
                share = len(wrong) / len(part)
                places.append(f"{log.name}, {what}: {share:.0%}, such as {place}")
    if places:
        says = "answers that were cut off count as wrong: a higher limit might change the verdict"
        return Finding("truncation", FOUND, says, tuple(places[:MOST_PLACES]))
    if not known:
        return Finding("truncation", UNKNOWN_STATUS, "the logs do not say which answers were cut")
    return Finding("truncation", CLEAR, "under 5% of each run's answers were cut off and are wrong")


def duplicates(audited: Audited) -> Finding:
    """Rows that were logged twice."""
    places = []
    for log in audited.logs:
        for part in (log.train, log.evaluation):
            place = _first_copy(log, part)
            if place:
                places.append(f"{log.name}: {place}")
    if places:
        says = "rows were logged twice, and count twice"
        return Finding("duplicates", FOUND, says, tuple(places[:MOST_PLACES]))
    return Finding("duplicates", CLEAR, "no group was logged twice")


def _first_copy(log: RunLog, part: Answers) -> str:
    """The first group that was logged twice; "" where there is none.

    Answers of a group may be equal. So only groups over the usual size count, whose answers come
    again in the same order, or that hold a copy beside a complete group; and groups of a log of
    which most are two equal halves.
    """
    groups = [rows for rows in _groups(part) if len(set(part.text_N[rows].tolist())) > 1]
    if not groups:
        return ""
    usual = _group_size(part)
    copies = []
    for rows in groups:
        size = len(rows)
        texts = part.text_N[rows]
        is_repeated = size > usual and size % usual == 0 and _repeats(texts, usual)
        has_spare = size > usual and size % usual and len(set(texts.tolist())) < size
        if is_repeated or has_spare:
            copies.append(rows)
    if not copies and usual % 2 == 0:
        # All groups twice: then the usual size is that of copies.
        halved = [rows for rows in groups if _repeats(part.text_N[rows], usual // 2)]
        if len(halved) > MUCH_DEAD * len(groups):
            copies = halved
            usual //= 2
    if not copies:
        return ""
    rows = copies[0]
    first = log.place(part, int(rows[0]))
    second = log.place(part, int(rows[min(usual, len(rows) - 1)]))
    return f"{len(copies)} of {len(groups)} groups, such as {first} and {second}"


def _repeats(texts_N: np.ndarray, size: int) -> bool:
    """Whether texts (N,) are one sequence of this size, again and again."""
    if len(texts_N) % size or len(texts_N) == size or size < 1:
        return False
    rows = texts_N.reshape(-1, size)
    return bool((rows == rows[0]).all())


def leaks(audited: Audited) -> Finding:
    """Critiques that give the answer away."""
    checked = sum(log.leaks.checked for log in audited.logs)
    critiques = sum(log.leaks.critiques for log in audited.logs)
    leaked = sum(log.leaks.leaked for log in audited.logs)
    if not critiques:
        return Finding("leaks", CLEAR, "no critiques are logged")
    if not checked:
        says = "critiques are logged without the answers that they might give away"
        return Finding("leaks", UNKNOWN_STATUS, says)
    if leaked:
        places = []
        for log in audited.logs:
            places += [f"{log.name}: {place}" for place in log.leaks.places]
        says = f"{leaked} of {checked} critiques give the answer away"
        return Finding("leaks", FOUND, says, tuple(places[:MOST_PLACES]))
    return Finding("leaks", CLEAR, f"none of {checked} critiques gives the answer away")


def overlap(audited: Audited) -> Finding:
    """Held-out problems that were trained on."""
    trained: dict[int | str, str] = {}
    held_out: dict[int | str, str] = {}
    for log in audited.logs:
        for part, problems_of in ((log.train, trained), (log.evaluation, held_out)):
            first: dict[int, int] = {}
            codes, rows = np.unique(part.problem_N, return_index=True)
            first = dict(zip(codes.tolist(), rows.tolist(), strict=True))
            for code, row in first.items():
                problem = log.problems[code]
                key: int | str = problem.id
                if problem.prompt is not None:
                    key = problem.prompt
                problems_of.setdefault(key, f"{log.name} {log.place(part, row)}")
    if not trained or not held_out:
        says = "the logs do not hold both training and held-out answers"
        return Finding("overlap", UNKNOWN_STATUS, says)
    shared = [key for key in held_out if key in trained]
    if shared:
        places = [f"{held_out[key]} was trained on: {trained[key]}" for key in shared]
        says = f"{len(shared)} of {len(held_out)} held-out problems were trained on"
        return Finding("overlap", FOUND, says, tuple(places[:MOST_PLACES]))
    return Finding("overlap", CLEAR, "no held-out problem was trained on")


def checkpoints(audited: Audited) -> Finding:
    """The last policy is judged, and not the best of several on the held-out problems."""
    if audited.estimand.kind != HELD_OUT:
        return Finding("checkpoints", UNKNOWN_STATUS, "no held-out answers are compared")
    places = []
    for run in audited.evaluations:
        log = run.log
        levels = _levels(log.evaluation)
        reported = audited.mapping.reported.get(log.arm)
        best = max(levels, key=lambda step: levels[step])
        if reported is not None and reported == best and reported != max(levels):
            gain = levels[best] - levels[max(levels)]
            places.append(
                f"{log.name}: step {reported} is reported, the best of {len(levels)} evaluations; "
                f"the last has {gain:.2f} less"
            )
            continue
        trained = int(log.train.step_N.max()) if len(log.train) else UNKNOWN
        if trained > run.step >= 0 and trained - run.step > _interval(levels, trained):
            places.append(f"{log.name}: evaluated at step {run.step} of {trained}")
    if places:
        says = "a policy before the last was judged, which may have been chosen by these problems"
        return Finding("checkpoints", FOUND, says, tuple(places[:MOST_PLACES]))
    if not all(len(run.log.train) for run in audited.evaluations):
        says = "the logs do not say how long the judged policies were trained"
        return Finding("checkpoints", UNKNOWN_STATUS, says)
    return Finding("checkpoints", CLEAR, "the last policy of every run is judged")


def _levels(part: Answers) -> dict[int, float]:
    """Step -> share of right answers among the judged ones."""
    levels = {}
    for step in np.unique(part.step_N).tolist():
        right_N = part.right_N[part.step_N == step]
        judged_N = right_N[right_N != UNKNOWN]
        levels[step] = float(judged_N.mean()) if len(judged_N) else 0.0
    return levels


def _interval(levels: Mapping[int, float], trained: int) -> int:
    """Steps between evaluations: the last may be that far from the end."""
    steps = sorted(levels)
    if len(steps) > 1:
        return max(right - left for left, right in pairwise(steps))
    # One evaluation belongs to the end; trainers count from 0 or from 1.
    return max(1, trained // 100)


# ---- groups --------------------------------------------------------------------------------------


def _groups(part: Answers) -> list[np.ndarray]:
    """Places of the answers to one problem at one step, of two at least, in the log's order."""
    if not len(part):
        return []
    keys_N = part.step_N.astype(np.int64) * (int(part.problem_N.max()) + 1) + part.problem_N
    order = np.argsort(keys_N, kind="stable")
    starts = np.flatnonzero(np.diff(keys_N[order])) + 1
    return [rows for rows in np.split(order, starts) if len(rows) > 1]


def _group_size(part: Answers) -> int:
    """The commonest size of a group; 1 where every answer stands alone."""
    sizes = Counter(len(rows) for rows in _groups(part))
    if not sizes:
        return 1
    return sizes.most_common(1)[0][0]


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
