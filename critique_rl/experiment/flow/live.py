"""Masses while training: a few completions of a few held-out problems, every N steps.

The probes are the likeliest completions of each class under the policy before training. Masses are
exact for them, but the list is short: what it leaves out counts as `rest`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from transformers import TrainerCallback

from critique_rl.analysis.flow.classes import CLASSES, RIGHT
from critique_rl.config.checks import ConfigError
from critique_rl.config.schema import RunConfig
from critique_rl.experiment.build import load_start_policy, move_to_device
from critique_rl.experiment.evaluate import training_sampling
from critique_rl.experiment.flow.account import StepAccount
from critique_rl.experiment.flow.masses import each_log_class_mass, listed_masses, problem_log_probs
from critique_rl.experiment.flow.points import SEED
from critique_rl.experiment.flow.probes import ProbedProblem, ProbeSet, build_probes
from critique_rl.tasks.task import Task
from critique_rl.trainer.critique_grpo import CritiqueGRPOTrainer
from critique_rl.trainer.trl_seams import metric

PROBES_PER_PROBLEM = 8
ALL = "all"
"""The family of every problem."""


def add_live_masses(trainer: CritiqueGRPOTrainer, config: RunConfig, task: Task) -> None:
    """Have a trainer log masses, and an account of its terms if the run asks for one.

    Args:
        trainer: A trainer before its training.
        config: The run.
        task: Its held-out problems, whose completions can be listed.

    Raises:
        ConfigError: The policy is sharded: no rank could score a probe.
    """
    flow = config.flow
    if flow is None or not flow.every:
        return
    if trainer.is_sharded:
        raise ConfigError(
            f"flow.every: got {flow.every} with sharded weights, expected 0: take flow.snapshots, "
            "and score them with critique-rl flow"
        )
    probes = live_probes(config, task)
    trainer.add_callback(LiveMasses(trainer, probes, flow.every))
    if flow.account:
        members = []
        for problem in probes.problems:
            if flow.account in (ALL, problem.family):
                members.append(problem)
        log_masses = partial(each_log_class_mass, probes=replace(probes, problems=tuple(members)))
        trainer.add_callback(StepAccount(trainer, log_masses, flow.every, CLASSES))


def live_probes(config: RunConfig, task: Task) -> ProbeSet:
    """At most `flow.probes` completions of held-out problems, evenly over the families.

    Args:
        config: The run, with a `flow` section.
        task: Its task.

    Raises:
        ConfigError: The policy spells one answer in several ways, so a list has no mass.
    """
    assert config.flow is not None, "the caller has checked that masses are asked for"
    most = config.flow.probes
    rows = task.held_out(config.evaluation.split, config.flow.problems)
    by_family: dict[str, list[Any]] = {}
    for row in rows:
        by_family.setdefault(str(row["family"]), []).append(row)
    per_family = max(1, most // (PROBES_PER_PROBLEM * len(by_family)))
    few = []
    for rows_of_family in by_family.values():
        few += rows_of_family[:per_family]
    few = few[:most]
    model, tokenizer = load_start_policy(config)
    move_to_device(model)
    sampling = training_sampling(config)
    probes = build_probes(model, tokenizer, task, few, sampling, config.flow.samples, SEED)
    if not probes.listed:
        raise ConfigError(
            f"flow.every: got {config.flow.every} with a policy that spells one answer in several "
            "ways, expected 0; take flow.snapshots, and score them with critique-rl flow"
        )
    kept = most // len(few)
    problems = []
    for problem in probes.problems:
        logps = problem_log_probs(model, problem, problem.probes, probes.temperature)
        problems.append(_likeliest(problem, logps.tolist(), kept))
    return replace(probes, problems=tuple(problems))


def _likeliest(problem: ProbedProblem, logps: Sequence[float], most: int) -> ProbedProblem:
    """The problem with its likeliest right completion and the likeliest ones of each other class.

    Classes take turns, so that one with little mass before training is seen to grow.
    """
    order = sorted(range(len(logps)), key=lambda place: -logps[place])
    by_class: dict[str, list[Any]] = {kind: [] for kind in CLASSES}
    for place in order:
        probe = problem.probes[place]
        by_class[probe.kind].append(probe)
    turns = [by_class[RIGHT][:1]]
    for kind in CLASSES[1:]:
        turns.append(by_class[kind])
    kept: list[Any] = []
    for turn in range(len(logps)):
        for members in turns:
            if turn < len(members):
                kept.append(members[turn])
    return replace(problem, probes=tuple(kept[:most]))


class LiveMasses(TrainerCallback):
    """Logs `flow/<family>/<class>`, means over the family's probed problems, every N steps."""

    def __init__(self, trainer: CritiqueGRPOTrainer, probes: ProbeSet, every: int):
        self.trainer = trainer
        self.probes = probes
        self.every = every

    def on_step_end(self, args, state, control, **kwargs):
        """Score the probes where it is their turn; nothing of the training changes."""
        if state.global_step % self.every:
            return control
        policy = self.trainer.policy
        was_training = policy.training
        policy.train(False)
        try:
            masses = listed_masses(policy, self.probes).problems
        finally:
            policy.train(was_training)
        for name, value in family_means(self.probes, masses).items():
            metric(self.trainer, f"flow/{name}", value)
        return control


def family_means(probes: ProbeSet, masses: dict[str, dict[str, float]]) -> dict[str, float]:
    """ "<family>/<class>" -> mean mass over the family's problems."""
    sums: dict[str, float] = {}
    sizes: dict[str, int] = {}
    for problem in probes.problems:
        sizes[problem.family] = sizes.get(problem.family, 0) + 1
        for kind, mass in masses[problem.id].items():
            name = f"{problem.family}/{kind}"
            sums[name] = sums.get(name, 0.0) + mass
    means = {}
    for name, total in sums.items():
        family, _, _ = name.rpartition("/")
        means[name] = total / sizes[family]
    return means
