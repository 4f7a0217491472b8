"""Checks of whether arms are alike but for what is compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from critique_rl.analysis.formats import ALIKE, short
from critique_rl.experiment.audit.estimand import HELD_OUT, run_cost
from critique_rl.experiment.audit.findings import Audited, Finding, clear, fault, per_arm, unknown
from critique_rl.experiment.audit.groups import group_size
from critique_rl.experiment.audit.logs import RunLog

SAME_PROMPTS = 0.95
"""Share of the training problems of one seed that two arms have in common at least."""
SHOWN = 60
"""Characters of a problem's id in a finding."""
ANCHORS = ("beta", "kl", "ref_model", "ema", "anchor")
"""Words in the names of settings that hold a policy near another one."""
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
"""Words in the names of settings that two arms should share."""
CONTROLS = {"retry": ("retry", "again"), "shuffled": ("shuffl", "random", "noise")}
"""Control arm -> parts of names that show it."""


def seeds(audited: Audited) -> Finding:
    """Each arm has several seeds, and all have the same."""
    numbers = {}
    for arm, logs in audited.arms.items():
        numbers[arm] = sorted(log.seed for log in logs)
    single = {}
    for arm, taken in numbers.items():
        if len(taken) < 2:
            single[arm] = f"seed {taken[0]}"
    if single:
        listed = ", ".join(single)
        says = f"one seed of {listed}: it says nothing of other seeds"
        return fault("seeds", says, per_arm(single))
    first = next(iter(numbers.values()))
    if any(taken != first for taken in numbers.values()):
        return fault("seeds", "arms have other seeds, so not all are paired", per_arm(numbers))
    return clear("seeds", f"{len(first)} seeds per arm")


def problems(audited: Audited) -> Finding:
    """All runs answer the same problems."""
    if audited.estimand.kind != HELD_OUT:
        return _training_problems(audited)
    ids = {}
    for run in audited.evaluations:
        ids[run.log.name] = set(run.evaluation.problems)
    shared = set.intersection(*ids.values())
    union = set.union(*ids.values())
    places = []
    for name, held_out in ids.items():
        extra = sorted(held_out - shared)
        if extra:
            example = extra[0][:SHOWN]
            places.append(f"{name}: {len(extra)} that others lack, such as {example!r}")
    if places:
        says = f"{len(union - shared)} of {len(union)} held-out problems are not in all runs"
        return fault("problems", says, places)
    return clear("problems", f"the same {len(shared)} held-out problems in all runs")


def _training_problems(audited: Audited) -> Finding:
    by_seed: dict[int, list[RunLog]] = {}
    for log in audited.logs:
        by_seed.setdefault(log.seed, []).append(log)
    places = []
    for seed, logs in by_seed.items():
        first = _ids(logs[0])
        for log in logs[1:]:
            ids = _ids(log)
            shared = len(ids & first)
            share = shared / len(ids | first)
            if share < SAME_PROMPTS:
                other = logs[0].arm
                places.append(f"seed {seed}: {log.arm} shares {share:.0%} with {other}")
    if places:
        return fault("problems", "arms were trained on other problems", places)
    return clear("problems", "arms of one seed were trained on the same problems")


def _ids(log: RunLog) -> set[str]:
    return {problem.id for problem in log.problems}


def prompts(audited: Audited) -> Finding:
    """A problem's prompt is the same in all runs."""
    if not all(log.has_ids for log in audited.logs):
        says = "the logs have no ids of problems, so another prompt would be another problem"
        return unknown("prompts", says)
    first: dict[str, int] = {}
    differing: dict[str, list[str]] = {}
    for log in audited.logs:
        for problem in log.problems:
            if problem.prompt is None:
                continue
            known = first.setdefault(problem.id, problem.prompt)
            if known != problem.prompt:
                differing.setdefault(log.name, []).append(problem.id)
    if not first:
        return unknown("prompts", "the logs have no prompts")
    places = []
    for name, ids in differing.items():
        example = ids[0][:SHOWN]
        places.append(f"{name}: {len(ids)} problems, such as {example!r}")
    if places:
        return fault("prompts", "the same problems were asked with other prompts", places)
    return clear("prompts", "each problem has one prompt in all runs")


def samples(audited: Audited) -> Finding:
    """As many answers per problem, and per group of training."""
    evaluated = {}
    if audited.estimand.kind == HELD_OUT:
        for run in audited.evaluations:
            evaluated[run.log.name] = run.evaluation.protocol["samples"]
    trained = {}
    for log in audited.logs:
        if len(log.train):
            trained[log.name] = group_size(log.train)
    places = []
    for what, counts in (("held-out problem", evaluated), ("training group", trained)):
        if len(set(counts.values())) < 2:
            continue
        for name, count in counts.items():
            places.append(f"{name}: {count} answers per {what}")
    if places:
        return fault("samples", "runs took other numbers of answers", places)
    return clear("samples", "as many answers per problem in all runs")


def budgets(audited: Audited) -> Finding:
    """Arms spent alike: tokens where they are logged, else answers."""
    if not all(len(log.train) for log in audited.logs):
        return unknown("budgets", "not every run logged its training rollouts")
    tokens = {}
    answers = {}
    for arm, logs in audited.arms.items():
        tokens_S = []
        answers_S = []
        for log in logs:
            cost = run_cost(log)
            tokens_S.append(cost.generated_tokens)
            answers_S.append(len(log.train))
        tokens[arm] = float(np.mean(tokens_S))
        answers[arm] = float(np.mean(answers_S))
    measure = "generated tokens"
    spent = tokens
    if not all(tokens.values()):
        measure = "training answers (tokens are not logged)"
        spent = answers
    least = min(spent.values())
    ratio = max(spent.values()) / least
    if ratio > ALIKE:
        says = f"arms differ by {ratio:.2f} times in {measure}"
        shown = {}
        for arm, amount in spent.items():
            shown[arm] = short(amount)
        return fault("budgets", says, per_arm(shown))
    return clear("budgets", f"arms agree within 5% in {measure}")


def settings(audited: Audited) -> Finding:
    """Settings that arms should share."""
    says = "arms were trained with other settings"
    return _compare_settings(audited, "settings", EFFORT, says)


def anchors(audited: Audited) -> Finding:
    """What holds a policy near its start: a KL term, a reference, a moving average."""
    says = "arms have other anchors, which may be a part of the difference"
    return _compare_settings(audited, "anchors", ANCHORS, says)


def _compare_settings(audited: Audited, check: str, words: Sequence[str], says: str) -> Finding:
    by_arm: dict[str, Mapping[str, Any]] = {}
    for arm, logs in audited.arms.items():
        by_arm[arm] = logs[0].settings
    if not all(by_arm.values()):
        return unknown(check, "no settings lie beside the logs of every arm")
    names = sorted(set().union(*by_arm.values()))
    compared = [name for name in names if _has_word(name, words)]
    places = []
    for name in compared:
        values = {}
        for arm, known in by_arm.items():
            values[arm] = repr(known.get(name))
        if len(set(values.values())) > 1:
            listed = ", ".join(per_arm(values))
            places.append(f"{name}: {listed}")
    if places:
        return fault(check, says, places)
    if not compared:
        return unknown(check, "the settings beside the logs name none")
    return clear(check, f"{len(compared)} settings are the same in all arms")


def _has_word(name: str, words: Sequence[str]) -> bool:
    """Whether a word stands in a setting's last part: "kl" in kl_coef, and not in tackle."""
    _, _, last = name.rpartition(".")
    padded = f"_{last.lower()}_"
    return any(f"_{word}_" in padded for word in words)


def tried(audited: Audited) -> Finding:
    """As many settings were tried for each arm."""
    counts = audited.mapping.tried
    if set(counts) < set(audited.arms):
        says = "logs do not hold what was tried before; the mapping file may say it (tried:)"
        return unknown("tried", says)
    if len(set(counts.values())) > 1:
        return fault("tried", "more settings were tried for some arms", per_arm(counts))
    return clear("tried", "as many settings were tried for each arm")


def controls(audited: Audited) -> Finding:
    """With critiques: an arm that tries again without words, and one with the words of others."""
    criticised = []
    for arm, logs in audited.arms.items():
        if any(log.leaks.critiques for log in logs):
            criticised.append(arm)
    if not criticised:
        return clear("controls", "no arm logged critiques")
    names = [arm.lower() for arm in audited.arms]
    missing = []
    for control, parts in CONTROLS.items():
        if not _is_named(names, parts):
            missing.append(control)
    if missing:
        says = (
            f"{', '.join(criticised)} had critiques, and no arm is named {' or '.join(missing)}: "
            "trying again, or any words, might do the same"
        )
        return fault("controls", says, audited.arms)
    return clear("controls", "arms that try again and that read other words are there")


def _is_named(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether one of the names has one of the parts."""
    for name in names:
        for part in parts:
            if part in name:
                return True
    return False
