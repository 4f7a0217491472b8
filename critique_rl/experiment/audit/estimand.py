"""From logged answers to evaluations: which answers are right, and which of them count.

Held-out answers of the last evaluation where every arm logged any. Else training rollouts of the
last steps: the estimand then is the share of right answers on training prompts, of a policy that
moves while it is measured. Both become `analysis.evaluations.Evaluation`, so that the intervals
and the verdict are those of `critique-rl compare`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from critique_rl.analysis.comparison import Cost
from critique_rl.analysis.evaluations import ALL_FAMILIES, POOLED, Evaluation, JudgedProblem
from critique_rl.config.checks import ConfigError
from critique_rl.experiment.audit.logs import Answers, RunLog
from critique_rl.experiment.audit.values import UNKNOWN
from critique_rl.metrics import pass_at_k

HELD_OUT = "held-out"
TRAINING = "training"
MOSTLY_SHARED = 0.5
"""Share of a run's problems that all others must have for problems to be paired."""
POOLED_SAMPLES = 1_000
"""Answers behind a pooled problem in its protocol: more than any k that is asked for."""
MOST_FAMILIES = 12
"""More values of a column than these are no families: it holds a text."""


@dataclass(frozen=True)
class Estimand:
    """The quantity that the arms are compared on."""

    kind: str
    """`HELD_OUT` or `TRAINING`."""
    says: str
    """In words."""
    is_pooled: bool = False
    """Whether all answers of a run and family are pooled, so that seeds alone differ."""


@dataclass(frozen=True)
class RunEvaluation:
    """One run's answers that count, and what was made of them."""

    log: RunLog
    answers: Answers
    step: int
    """The step of the evaluation, or the last one of training; -1 unknown."""
    evaluation: Evaluation


def judge_rewards(logs: Sequence[RunLog], threshold: float | None) -> tuple[list[RunLog], str]:
    """Say which answers are right, of logs that hold rewards alone.

    Args:
        logs: all runs, since they share the rule.
        threshold: the least reward of a right answer; None: 1, of rewards 0 or -1 and 1.

    Returns:
        The runs, and the rule in words; "" where the logs hold verdicts.

    Raises:
        ConfigError: there are other rewards, and no threshold.
    """
    values = _open_rewards(logs)
    least = threshold
    if least is None:
        least = 1.0
        is_usual = values <= {0.0, 1.0} or values <= {-1.0, 1.0}
        if not is_usual:
            lowest = sorted(values)
            first = [f"{value:g}" for value in lowest[:5]]
            shown = ", ".join(first)
            if len(values) > 5:
                shown += ", ..."
            raise ConfigError(
                f"got the rewards {shown} and no verdicts, expected 0 or 1, or -1 or 1: say in a "
                "mapping file from which reward on an answer is right, right: 0.5"
            )
    rule = ""
    if values:
        rule = f"an answer is right from a reward of {least:g} on"
    judged = []
    for log in logs:
        train = _with_verdicts(log.train, least)
        evaluation = _with_verdicts(log.evaluation, least)
        judged.append(replace(log, train=train, evaluation=evaluation))
    return judged, rule


def _open_rewards(logs: Sequence[RunLog]) -> set[float]:
    """Rewards of the answers that have no verdict, of the part that is judged."""
    has_held_out = all_evaluated(logs)
    values: set[float] = set()
    for log in logs:
        part = log.train
        if has_held_out:
            part = log.evaluation
        has_reward_N = ~np.isnan(part.reward_N)
        is_open_N = part.right_N == UNKNOWN
        rewards_N = part.reward_N[has_reward_N & is_open_N]
        values.update(np.unique(rewards_N).tolist())
    return values


def all_evaluated(logs: Sequence[RunLog]) -> bool:
    """Whether every arm has held-out answers."""
    arms = {log.arm for log in logs}
    evaluated = {log.arm for log in logs if len(log.evaluation)}
    return evaluated == arms


def _with_verdicts(answers: Answers, least: float) -> Answers:
    by_reward_N = np.where(answers.reward_N >= least, 1, 0)
    lacks_reward_N = np.isnan(answers.reward_N)
    by_reward_N = np.where(lacks_reward_N, UNKNOWN, by_reward_N)
    is_open_N = answers.right_N == UNKNOWN
    right_N = np.where(is_open_N, by_reward_N, answers.right_N)
    return replace(answers, right_N=right_N.astype(np.int8))


def choose_estimand(logs: Sequence[RunLog], last_steps: int) -> Estimand:
    """Held-out answers where every arm has any, else training rollouts.

    Args:
        logs: all runs.
        last_steps: steps of training whose rollouts count.
    """
    if all_evaluated(logs):
        says = "right answers to held-out problems, at the last evaluation"
        if not any((log.evaluation.step_N != UNKNOWN).any() for log in logs):
            says = "right answers to held-out problems, all that are logged since no steps are"
        return Estimand(HELD_OUT, says)
    says = f"right answers to training prompts in the last {last_steps} steps"
    if not any(_has_steps(log) for log in logs):
        says = "right answers in logs without steps, which may be of training or of an evaluation"
    training = Estimand(TRAINING, says)
    parts = []
    for log in logs:
        answers, _ = _counted(log, training, last_steps)
        if len(answers):
            parts.append((log, answers))
    if _share_problems(parts):
        return training
    # Seeds draw other prompts, so there is nothing to pair them by but the run.
    says += ", pooled per run and family since seeds drew other prompts"
    return Estimand(TRAINING, says, is_pooled=True)


def _has_steps(log: RunLog) -> bool:
    return bool((log.train.step_N != UNKNOWN).any())


def evaluate_logs(
    logs: Sequence[RunLog], estimand: Estimand, last_steps: int, k: int = 1
) -> list[RunEvaluation]:
    """Make evaluations of the answers that count.

    Args:
        logs: all runs, with verdicts.
        estimand: which answers count.
        last_steps: steps of training whose rollouts count.
        k: of a pass@k that is asked for, beside 1 and the number of answers per problem.

    Returns:
        One per run that has such answers.
    """
    parts = []
    for log in logs:
        answers, step = _counted(log, estimand, last_steps)
        if len(answers):
            parts.append((log, answers, step))
    typical = _typical_samples([answers for _, answers, _ in parts])
    has_families = _are_families(parts)
    has_tokens = know_tokens(logs)
    evaluations = []
    for log, answers, step in parts:
        if estimand.is_pooled:
            made = _pooled_evaluation(log, answers, has_families)
        elif estimand.kind == HELD_OUT:
            # Two evaluations are compared only where they took as many answers per problem.
            made = _evaluation(log, answers, _typical_samples([answers]), k, has_families)
        else:
            made = _evaluation(log, answers, typical, k, has_families)
        made = replace(made, cost=run_cost(log, has_tokens))
        evaluations.append(RunEvaluation(log, answers, step, made))
    return evaluations


def _share_problems(parts: Sequence[tuple[RunLog, Answers]]) -> bool:
    """Whether most problems of each run are in all others."""
    ids = []
    for log, answers in parts:
        of_run = set()
        for code in np.unique(answers.problem_N).tolist():
            of_run.add(log.problems[code].id)
        ids.append(of_run)
    if not ids:
        return True
    shared = set.intersection(*ids)
    most = max(len(each) for each in ids)
    return len(shared) >= MOSTLY_SHARED * most


def _counted(log: RunLog, estimand: Estimand, last_steps: int) -> tuple[Answers, int]:
    part = log.evaluation if estimand.kind == HELD_OUT else log.train
    if not len(part):
        return part, UNKNOWN
    steps = np.unique(part.step_N)
    last = int(steps[-1])
    first = last
    if estimand.kind == TRAINING:
        first = last - last_steps + 1
    return part.take(part.step_N >= first), last


def _typical_samples(parts: Sequence[Answers]) -> int:
    """The commonest number of answers per problem."""
    counts: Counter[int] = Counter()
    for answers in parts:
        _, per_problem = np.unique(answers.problem_N, return_counts=True)
        counts.update(per_problem.tolist())
    if not counts:
        return 1
    return int(counts.most_common(1)[0][0])


def _are_families(parts: Sequence[tuple[RunLog, Answers, int]]) -> bool:
    """Whether the values of the column are few enough, over the answers of all runs that count."""
    families: set[str] = set()
    for log, answers, _ in parts:
        for code in np.unique(answers.problem_N).tolist():
            families.add(log.problems[code].family)
    return len(families) <= MOST_FAMILIES


def _evaluation(
    log: RunLog, answers: Answers, samples: int, k: int, has_families: bool
) -> Evaluation:
    problems = {}
    size = len(log.problems)
    is_judged_N = answers.right_N != UNKNOWN
    is_right_N = answers.right_N == 1
    judged_P = np.bincount(answers.problem_N[is_judged_N], minlength=size)
    right_P = np.bincount(answers.problem_N[is_right_N], minlength=size)
    for code in np.unique(answers.problem_N).tolist():
        problem = log.problems[code]
        judged = int(judged_P[code])
        right = int(right_P[code])
        family = ALL_FAMILIES
        if problem.family and has_families:
            family = problem.family
        problems[problem.id] = JudgedProblem(family, judged, right)
    return Evaluation(
        protocol={"samples": samples},
        problems=problems,
        metrics=_metrics(problems, (1, k, samples)),
        cost=Cost(),
        unscored=int((~is_judged_N).sum()),
        samples=len(answers),
    )


def _pooled_evaluation(log: RunLog, answers: Answers, has_families: bool) -> Evaluation:
    """Of each family one problem, to which all answers of the run belong."""
    names = []
    for problem in log.problems:
        names.append(problem.family or ALL_FAMILIES)
    families_P = np.array(names)
    if not has_families:
        families_P[:] = ALL_FAMILIES
    families_N = families_P[answers.problem_N]
    problems = {}
    for family in dict.fromkeys(families_N.tolist()):
        right_N = answers.right_N[families_N == family]
        judged = int((right_N != UNKNOWN).sum())
        right = int((right_N == 1).sum())
        problems[family] = JudgedProblem(family, judged, right)
    return Evaluation(
        # Runs filter other answers, so their numbers differ; one number stands for all.
        protocol={"samples": POOLED_SAMPLES, POOLED: True},
        problems=problems,
        metrics=_metrics(problems, (1,)),
        cost=Cost(),
        unscored=int((answers.right_N == UNKNOWN).sum()),
        samples=len(answers),
    )


def _metrics(problems: Mapping[str, JudgedProblem], ks: Sequence[int]) -> dict[str, float | None]:
    """Names of the metrics that these problems have, with their means."""
    families = {ALL_FAMILIES: None}
    for problem in problems.values():
        families[problem.family] = None
    metrics: dict[str, float | None] = {}
    for k in dict.fromkeys(ks):
        for family in families:
            values = []
            for problem in problems.values():
                is_member = family in (ALL_FAMILIES, problem.family)
                if is_member and problem.judged >= k:
                    value = pass_at_k(problem.judged, problem.right, k)
                    values.append(float(value))
            if values:
                name = f"pass@{k}/{family}"
                metrics[name] = float(np.mean(values))
    return metrics


def know_tokens(logs: Sequence[RunLog]) -> bool:
    """Whether every training answer of every run has its tokens: a gap would pass for 0."""
    gaps = 0
    for log in logs:
        gaps += int((log.train.tokens_N == UNKNOWN).sum())
        gaps += not len(log.train)
    return gaps == 0


def run_cost(log: RunLog, has_tokens: bool) -> Cost:
    """Steps of training, and its generated tokens where those of all runs are known; else 0."""
    part = log.train
    tokens = 0
    if has_tokens:
        tokens = int(part.tokens_N.sum()) + log.left_out_tokens
    steps = len(np.unique(part.step_N))
    return Cost(generated_tokens=float(tokens), steps=float(steps))
