"""A run's settings as TRL's arguments, and everything about them that can be refused before the
first run starts.

`config` knows what a pipeline file may hold without importing TRL; what needs TRL, the task or the
critic to be judged is judged here.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

from critique_rl.config.checks import ConfigError, suggest
from critique_rl.config.run_folder import RunFolder
from critique_rl.config.schema import PlateauConfig, RunConfig
from critique_rl.critic.build import build_critic
from critique_rl.experiment.build import trainer_arguments
from critique_rl.metrics import EVALUATION_METRICS, SHARES
from critique_rl.prompts import template_names
from critique_rl.tasks.load import load_task
from critique_rl.tasks.rewards import build_reward
from critique_rl.tasks.task import Task
from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
from critique_rl.trainer.plateau import PlateauRule

# Of a field that TRL's own config sets: nothing a user could change.
warnings.filterwarnings("ignore", "`gradient_checkpointing` is deprecated", FutureWarning)


def plateau_rule(plateau: PlateauConfig) -> PlateauRule:
    """ConfigError for numbers that cannot work."""
    try:
        return PlateauRule(
            plateau.window, plateau.min_gain, plateau.looks, plateau.alpha, plateau.solved
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _check_boundaries(config: RunConfig, arguments: CritiqueGRPOConfig) -> None:
    """Runs branch where a generation is used up only."""
    period = max(
        1,
        arguments.steps_per_generation
        * arguments.num_iterations
        // arguments.gradient_accumulation_steps,
    )
    if config.plateau is not None:
        plateau_rule(config.plateau)
    named = (
        [("evaluation.curve_every", config.evaluation.curve_every)]
        if config.plateau is not None
        else []
    )
    for name, step in [*named, *(("a step to branch at", step) for step in config.keep_steps)]:
        if step % period:
            raise ConfigError(
                f"{name}: got {step}, expected a multiple of {period}, the optimizer steps of a generation"
            )


def _check_family(config: RunConfig, task: Task) -> None:
    """The plateau's family, and best_by's, must be among the problems of the learning curve."""
    evaluation = config.evaluation
    known = {str(row["family"]) for row in task.held_out("validation", 1)} | {"all"}
    if evaluation.best_by and evaluation.best_by.removeprefix("pass@1/") not in known:
        raise ConfigError(
            f"evaluation.best_by: no metric {evaluation.best_by!r}; {suggest(evaluation.best_by, [f'pass@1/{family}' for family in known])}"
        )
    if config.plateau is None:
        return
    if evaluation.curve_problems < 1 or evaluation.curve_samples < 1:
        raise ConfigError(
            "a plateau is looked for on the learning curve; set evaluation.curve_problems and curve_samples to 1 or more"
        )
    if config.plateau.family not in known:
        raise ConfigError(
            f"plateau.family: no family {config.plateau.family!r}; {suggest(config.plateau.family, known)}"
        )


def check_arms(arms: dict[str, RunConfig]) -> None:
    """Everything that can be refused before the first run starts is refused here, for all arms."""
    for arm, config in arms.items():
        try:
            arguments = trainer_arguments(config, RunFolder(Path("unused")))
            _check_boundaries(config, arguments)
            task = load_task(replace(config.task, size=16), 0)
            critic = build_critic(config.critic, task)
            build_reward(config.reward, task.verifier, arguments.num_generations)
            _check_family(config, task)
            named = {
                name: config.method[name]
                for name in ("refine_template", "distill_template")
                if name in config.method
            }
            second = config.evaluation.second_template
            for name, template in {
                **named,
                **({"evaluation.second_template": second} if second else {}),
            }.items():
                if template not in template_names():
                    raise ConfigError(
                        f"{name}: no template {template!r}; {suggest(str(template), template_names())}"
                    )
            arguments.check_trains(critic is not None)
        except ValueError as error:
            raise ConfigError(f"arm {arm}: {error}") from error


def check_primary(primary: str, config: RunConfig) -> None:
    """A primary metric that no evaluation will hold is refused before the first run, not after the
    last.
    """
    families = {
        str(row["family"])
        for row in load_task(replace(config.task, size=16), 0).held_out(config.evaluation.split, 1)
    } | {"all"}
    known = [f"pass@{k}/{family}" for k in config.evaluation.ks for family in sorted(families)]
    shares = [f"{name}/{family}" for name in SHARES for family in families]
    if primary not in (*known, *EVALUATION_METRICS, *shares):
        raise ConfigError(
            f"primary: no metric {primary!r} with these evaluation.ks and families; {suggest(primary, known)}"
        )
