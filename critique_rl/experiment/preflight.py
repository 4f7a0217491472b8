"""Settings that can be refused before the first run starts.

`config` knows the keys of a pipeline file without importing TRL. The checks here need TRL, the task
or the critic. Left out: the policy, which would have to be loaded; `critique-rl doctor` checks it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig, GenerationConfig

from critique_rl.config.checks import ConfigError, suggest
from critique_rl.config.run_folder import RunFolder
from critique_rl.config.schema import PlateauConfig, RunConfig, TaskConfig
from critique_rl.critic.build import build_critic
from critique_rl.experiment.build import trainer_arguments
from critique_rl.experiment.evaluate import rollout_options
from critique_rl.metrics import EVALUATION_METRICS, SHARES
from critique_rl.policy import resolve_model
from critique_rl.prompts import template_names
from critique_rl.sampling.settings import neutral_config
from critique_rl.tasks.load import load_task
from critique_rl.tasks.rewards import build_reward
from critique_rl.tasks.task import Task
from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
from critique_rl.trainer.plateau import PlateauRule
from critique_rl.trainer.rollout.sampling_options import SamplingWarning, sampling_warnings
from critique_rl.trainer.rollout.success import success_rule

# It is about a field that TRL's own config sets: nothing a user could change.
warnings.filterwarnings("ignore", "`gradient_checkpointing` is deprecated", FutureWarning)

FEW_PROMPTS = 16
"""Training prompts of a task that is loaded only to be looked at."""


def check_arms(arms: Mapping[str, RunConfig]) -> None:
    """Check the settings of all arms, without training or loading a policy.

    Raises:
        ConfigError: The first setting that a run would refuse, with the name of its arm.
    """
    for arm, config in arms.items():
        try:
            _check_arm(config)
        except ValueError as error:
            raise ConfigError(f"arm {arm}: {error}") from error


def _check_arm(config: RunConfig) -> None:
    """Build everything but policy and trainer.

    Raises:
        ValueError: The first setting that cannot be used; often a ConfigError.
    """
    # Nothing is written here, so the folder needs no place.
    arguments = trainer_arguments(config, RunFolder(Path("unused")))
    _check_branch_points(config, arguments)
    task = _load_small_task(config.task)
    critic = build_critic(config.critic, task)
    assert arguments.num_generations is not None, "TRL's arguments refuse null"
    rewards, weights = build_reward(config.reward, task.verifier, arguments.num_generations)
    if len(rewards) > 1:
        arguments.success_reward = arguments.success_reward or "correct"
    names = [reward.__name__ for reward in rewards]
    success_rule(rewards, names, weights, arguments, critic is not None)
    _check_best_by(config, task)
    _check_plateau_family(config, task)
    _check_templates(config)
    arguments.check_trains(critic is not None)


def _load_small_task(config: TaskConfig) -> Task:
    """The task with few training prompts: only its verifier and its families are looked at."""
    return load_task(replace(config, size=FEW_PROMPTS), 0)


def plateau_rule(plateau: PlateauConfig) -> PlateauRule:
    """The rule of a `plateau:` section.

    Raises:
        ConfigError: Numbers that cannot work together.
    """
    try:
        return PlateauRule(
            plateau.window, plateau.min_gain, plateau.looks, plateau.alpha, plateau.solved
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _check_branch_points(config: RunConfig, arguments: CritiqueGRPOConfig) -> None:
    """Refuse steps at which no run can branch.

    Raises:
        ConfigError: A step within a generation, or a plateau rule that cannot work.
    """
    # Checkpoints are written where a generation is used up: TRL keeps no half-used one.
    assert arguments.steps_per_generation is not None, "TRL's arguments fill it in"
    micro_batches = arguments.steps_per_generation * arguments.num_iterations
    period = max(1, micro_batches // arguments.gradient_accumulation_steps)
    steps = [("a step to branch at", step) for step in config.keep_steps]
    if config.plateau is not None:
        plateau_rule(config.plateau)
        steps.insert(0, ("evaluation.curve_every", config.evaluation.curve_every))
    for name, step in steps:
        if step % period:
            raise ConfigError(
                f"{name}: got {step}, expected a multiple of {period}, "
                "the optimizer steps of a generation"
            )


def _validation_families(task: Task) -> set[str]:
    """Families that the learning curve has, and "all"."""
    return {str(row["family"]) for row in task.held_out("validation", 1)} | {"all"}


def _check_best_by(config: RunConfig, task: Task) -> None:
    """Refuse an `evaluation.best_by` that the learning curve does not have.

    Raises:
        ConfigError: No such metric.
    """
    best_by = config.evaluation.best_by
    families = _validation_families(task)
    if best_by and best_by.removeprefix("pass@1/") not in families:
        metrics = [f"pass@1/{family}" for family in families]
        raise ConfigError(f"evaluation.best_by: no metric {best_by!r}; {suggest(best_by, metrics)}")


def _check_plateau_family(config: RunConfig, task: Task) -> None:
    """Refuse a plateau that no learning curve can show.

    Raises:
        ConfigError: No curve, or no such family on it.
    """
    if config.plateau is None:
        return
    evaluation = config.evaluation
    if evaluation.curve_problems < 1 or evaluation.curve_samples < 1:
        raise ConfigError(
            "a plateau is looked for on the learning curve; "
            "set evaluation.curve_problems and curve_samples to 1 or more"
        )
    family = config.plateau.family
    families = _validation_families(task)
    if family not in families:
        raise ConfigError(f"plateau.family: no family {family!r}; {suggest(family, families)}")


def _check_templates(config: RunConfig) -> None:
    """Refuse names of templates that prompts/ does not have.

    Raises:
        ConfigError: No such template.
    """
    options = ("refine_template", "distill_template")
    named = {name: config.method[name] for name in options if name in config.method}
    if config.evaluation.second_template:
        named["evaluation.second_template"] = config.evaluation.second_template
    templates = template_names()
    for name, template in named.items():
        if template not in templates:
            raise ConfigError(
                f"{name}: no template {template!r}; {suggest(str(template), templates)}"
            )


def check_sampling(arms: Mapping[str, RunConfig]) -> list[SamplingWarning]:
    """Warnings about how the arms' policies are sampled; of models of the Hub only a run knows."""
    warnings: list[SamplingWarning] = []
    for config in arms.values():
        try:
            folder = resolve_model(config.policy.model)
        except FileNotFoundError:
            # Loading the policy will tell.
            continue
        if Path(folder).is_dir():
            warnings += warn_sampling(config, *_read_configs(folder))
    # Arms share most of them.
    return list(dict.fromkeys(warnings))


def _read_configs(folder: str) -> tuple[Any, Any]:
    """A policy's generation config and config, from its files; None for one that does not load."""
    configs: list[Any] = []
    for kind in (GenerationConfig, AutoConfig):
        try:
            configs.append(kind.from_pretrained(folder))
        # A folder without the file, or with a broken one, of which loading the policy will tell.
        except (OSError, ValueError):
            configs.append(None)
    return configs[0], configs[1]


def warn_sampling(
    config: RunConfig, generation_config: Any, model_config: Any
) -> list[SamplingWarning]:
    """Warnings about how a policy is sampled, as its arm's settings have it.

    Args:
        config: The arm.
        generation_config: The policy's.
        model_config: The policy's.
    """
    if config.policy.generation_config == "neutral" and generation_config is not None:
        generation_config = neutral_config(generation_config)
    return sampling_warnings(rollout_options(config), generation_config, model_config)


def check_primary(primary: str, config: RunConfig) -> None:
    """Check that the evaluation of an arm will hold the primary metric.

    Raises:
        ConfigError: No such metric with this arm's `evaluation.ks` and families.
    """
    task = _load_small_task(config.task)
    rows = task.held_out(config.evaluation.split, 1)
    families = {str(row["family"]) for row in rows} | {"all"}
    pass_metrics = [f"pass@{k}/{family}" for k in config.evaluation.ks for family in families]
    shares = [f"{name}/{family}" for name in SHARES for family in families]
    if primary not in (*pass_metrics, *EVALUATION_METRICS, *shares):
        # Only pass@k is suggested: not every task has the other metrics.
        raise ConfigError(
            f"primary: no metric {primary!r} with these evaluation.ks and families; "
            f"{suggest(primary, pass_metrics)}"
        )
