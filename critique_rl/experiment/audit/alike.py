"""Checks of whether arms are alike but for what is compared."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from critique_rl.analysis.formats import ALIKE, short
from critique_rl.experiment.audit.estimand import HELD_OUT, know_tokens, run_cost
from critique_rl.experiment.audit.findings import Audited, Finding, clear, fault, per_arm, unknown
from critique_rl.experiment.audit.groups import group_size
from critique_rl.experiment.audit.logs import RunLog
from critique_rl.experiment.audit.settings import plain

SAME_PROMPTS = 0.95
"""Share of the training problems of one seed that two arms have in common at least."""
UNEVEN = 1.25
"""The largest spending of a seed's runs may be this times the smallest: lengths are chance."""
SHOWN = 60
"""Characters of a problem's id in a finding."""
ANCHORS = {
    "beta",
    "ema",
    "ema_decay",
    "kl_coef",
    "kl_loss_coef",
    "kl_penalty_coef",
    "sync_ref_model",
    "use_kl_in_reward",
    "use_kl_loss",
    "use_kl_penalty",
}
"""Names of settings that hold a policy near another one, the last part."""
EFFORT = {
    "batch_size",
    "epochs",
    "gradient_accumulation_steps",
    "group_size",
    "groups_per_batch",
    "learning_rate",
    "lora_rank",
    "lr",
    "max_completion_length",
    "max_response_length",
    "max_steps",
    "max_tokens",
    "model",
    "model_name",
    "model_name_or_path",
    "mini_batch_size",
    "num_generations",
    "num_iterations",
    "num_train_epochs",
    "per_device_train_batch_size",
    "ppo_epochs",
    "ppo_mini_batch_size",
    "rollouts_per_example",
    "seq_len",
    "temperature",
    "total_epochs",
    "total_steps",
    "total_training_steps",
    "train_batch_size",
}
"""Names of settings that two arms should share, the last part."""
EFFORT_PATHS = ("rollout.n", "model.path", "model.name")
"""Such settings whose last part alone says nothing."""
OTHERS = ("critic", "judge", "hint", "teacher", "reward_model")
"""First parts of settings that are of no policy."""
CONTROLS = {"retry": ("retry", "again"), "shuffled": ("shuffle", "shuffled", "noise")}
"""Control arm -> words of names that show it."""


def seeds(audited: Audited) -> Finding:
    """Each arm has several seeds, and all have the same."""
    numbers: dict[str, list[int]] = {arm: [] for arm in audited.arms}
    for run in audited.evaluations:
        numbers[run.log.arm].append(run.log.seed)
    for taken in numbers.values():
        taken.sort()
    empty = [arm for arm, taken in numbers.items() if not taken]
    if empty:
        places = [f"{arm}: no run has answers that count" for arm in empty]
        return fault("seeds", "an arm has no seed that counts", places)
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
    """All runs answer the same problems, and were trained on the same ones."""
    places = _other_training_problems(audited)
    if places:
        return fault("problems", "arms of one seed were trained on other problems", places)
    if audited.estimand.kind != HELD_OUT:
        return clear("problems", "arms of one seed were trained on the same problems")
    ids = {}
    for run in audited.evaluations:
        name = run.log.name
        ids[name] = set(run.evaluation.problems)
        number = len(ids[name])
        asked = _most_problems(run.log)
        if number < SAME_PROMPTS * asked:
            places.append(f"{name}: the last evaluation has {number} of {asked} problems")
    if places:
        return fault("problems", "the last evaluation is not complete", places)
    shared = set.intersection(*ids.values())
    union = set.union(*ids.values())
    for name, held_out in ids.items():
        extra = sorted(held_out - shared)
        if extra:
            example = extra[0][:SHOWN]
            places.append(f"{name}: {len(extra)} that others lack, such as {example!r}")
    if places:
        missing = len(union - shared)
        says = f"{missing} of {len(union)} held-out problems are not in all runs"
        return fault("problems", says, places)
    return clear("problems", f"the same {len(shared)} held-out problems in all runs")


def _most_problems(log: RunLog) -> int:
    """Problems of the evaluation that has most of them."""
    most = 0
    part = log.evaluation
    for step in np.unique(part.step_N):
        is_taken_N = part.step_N == step
        asked = np.unique(part.problem_N[is_taken_N])
        most = max(most, len(asked))
    return most


def _other_training_problems(audited: Audited) -> list[str]:
    by_seed: dict[int, list[RunLog]] = {}
    for log in audited.logs:
        if len(log.train):
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
    return places


def _ids(log: RunLog) -> set[str]:
    """Problems of training."""
    return {problem.id for problem in log.problems if not problem.is_held_out}


def prompts(audited: Audited) -> Finding:
    """A problem's prompt is the same in all runs."""
    if not all(log.has_ids for log in audited.logs):
        says = "the logs have no ids of problems, so another prompt would be another problem"
        return unknown("prompts", says)
    first: dict[tuple[bool, str], int] = {}
    differing: dict[str, list[str]] = {}
    for log in audited.logs:
        for problem in log.problems:
            if problem.prompt is None:
                continue
            key = (problem.is_held_out, problem.id)
            known = first.setdefault(key, problem.prompt)
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
    places = _uneven_samples(audited)
    for what, counts in (("held-out problem", evaluated), ("training group", trained)):
        if len(set(counts.values())) < 2:
            continue
        for name, count in counts.items():
            places.append(f"{name}: {count} answers per {what}")
    if places:
        return fault("samples", "other numbers of answers were taken", places)
    return clear("samples", "as many answers per problem in all runs")


def _uneven_samples(audited: Audited) -> list[str]:
    """Runs in which held-out problems have other numbers of answers than most."""
    if audited.estimand.kind != HELD_OUT:
        return []
    places = []
    for run in audited.evaluations:
        codes, counts = np.unique(run.answers.problem_N, return_counts=True)
        usual = run.evaluation.protocol["samples"]
        others = codes[counts != usual]
        if len(others):
            example = run.log.problems[others[0]].id[:SHOWN]
            places.append(
                f"{run.log.name}: {len(others)} problems have not {usual} answers, such as "
                f"{example!r}"
            )
    return places


def budgets(audited: Audited) -> Finding:
    """Arms spent alike: tokens where they are logged, else answers."""
    if not all(len(log.train) for log in audited.logs):
        return unknown("budgets", "not every run logged its training rollouts")
    has_tokens = know_tokens(audited.logs)
    measure = "generated tokens"
    if not has_tokens:
        measure = "training answers (tokens are not logged)"
    spent: dict[str, dict[int, float]] = {}
    for log in audited.logs:
        amount = float(len(log.train))
        if has_tokens:
            amount = run_cost(log, has_tokens).generated_tokens
        spent.setdefault(log.arm, {})[log.seed] = amount
    means = {}
    for arm, by_seed in spent.items():
        amounts = list(by_seed.values())
        means[arm] = float(np.mean(amounts))
    if not all(means.values()):
        return unknown("budgets", "an arm logged no tokens")
    shown = {}
    for arm, mean in means.items():
        shown[arm] = short(mean)
    ratio = max(means.values()) / min(means.values())
    if ratio > ALIKE:
        says = f"arms differ by {ratio:.2f} times in {measure}"
        return fault("budgets", says, per_arm(shown))
    places = _uneven_seeds(spent)
    if places:
        return fault("budgets", f"runs of one seed differ in {measure}", places)
    return clear("budgets", f"arms agree within 5% in {measure}")


def _uneven_seeds(spent: Mapping[str, Mapping[int, float]]) -> list[str]:
    """Seeds whose runs spent unalike, of spending by arm and seed."""
    by_seed: dict[int, dict[str, float]] = {}
    for arm, amounts in spent.items():
        for seed, amount in amounts.items():
            by_seed.setdefault(seed, {})[arm] = amount
    places = []
    for seed, amounts_of in by_seed.items():
        least = max(min(amounts_of.values()), 1.0)
        if max(amounts_of.values()) > UNEVEN * least:
            shown = {}
            for arm, amount in amounts_of.items():
                shown[arm] = short(amount)
            listed = ", ".join(per_arm(shown))
            places.append(f"seed {seed}: {listed}")
    return places


def settings(audited: Audited) -> Finding:
    """Settings that arms should share."""
    says = "arms were trained with other settings"
    return _compare_settings(audited, "settings", EFFORT, says)


def anchors(audited: Audited) -> Finding:
    """What holds a policy near its start: a KL term, a reference, a moving average."""
    says = "arms have other anchors, which may be a part of the difference"
    return _compare_settings(audited, "anchors", ANCHORS, says)


def _compare_settings(audited: Audited, check: str, words: Collection[str], says: str) -> Finding:
    by_run: dict[str, Mapping[str, Any]] = {}
    for log in audited.logs:
        by_run[log.name] = log.settings
    if not all(by_run.values()):
        return unknown(check, "no settings lie beside the logs of every run")
    names = sorted(set().union(*by_run.values()))
    compared = [name for name in names if _is_compared(name, words)]
    places = []
    for name in compared:
        values = {}
        for run, known in by_run.items():
            values[run] = plain(known.get(name))
        if len(set(values.values())) > 1:
            listed = ", ".join(per_arm(values))
            places.append(f"{name}: {listed}")
    if places:
        return fault(check, says, places)
    if not compared:
        return unknown(check, "the settings beside the logs name none that are known here")
    return clear(check, f"{len(compared)} settings are the same in all runs")


def _is_compared(name: str, words: Collection[str]) -> bool:
    """Whether a setting is of the policy's training, and named by one of these words."""
    lower = name.lower()
    first, _, _ = lower.partition(".")
    if first in OTHERS:
        return False
    _, _, last = lower.rpartition(".")
    if last in words:
        return True
    return words is EFFORT and lower.endswith(EFFORT_PATHS)


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
        return unknown("controls", "no critiques are logged")
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


def _is_named(names: Sequence[str], words: Collection[str]) -> bool:
    """Whether one of the names has one of the words, between signs that are no letters."""
    for name in names:
        parts = re.split(r"[^a-z]+", name)
        if any(part in words for part in parts):
            return True
    return False
