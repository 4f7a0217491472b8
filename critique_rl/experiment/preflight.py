"""Settings that can be refused before the first run starts.

`config` knows the keys of a pipeline file without importing TRL. The checks here need TRL, the task
or the critic. Left out: the policy, which would have to be loaded; `critique-rl doctor` checks it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub.utils import validate_repo_id
from transformers import AutoConfig, AutoTokenizer, GenerationConfig
from transformers.integrations import get_reporting_integration_callbacks

from critique_rl.analysis.claims.claim import parse_claim
from critique_rl.analysis.learning_curves import external_warnings
from critique_rl.config.checks import ConfigError, suggest
from critique_rl.config.run_folder import PipelineFolder, RunFolder
from critique_rl.config.schema import (
    EvaluationConfig,
    Pipeline,
    PlateauConfig,
    RunConfig,
    TaskConfig,
)
from critique_rl.config.terminal import say
from critique_rl.critic.build import build_critic
from critique_rl.critic.contract import Critic
from critique_rl.experiment.build import trainer_arguments
from critique_rl.experiment.evaluate import evaluation_sampling, rollout_options, training_sampling
from critique_rl.experiment.flow.probes import refuse_cut
from critique_rl.experiment.foresight.findings import refuse_or_warn
from critique_rl.experiment.foresight.foresee import foresee
from critique_rl.experiment.foresight.library_values import (
    LIBRARY_CHECKS,
    check_elsewhere,
    check_local_critic,
)
from critique_rl.experiment.resume.changes import check_inputs
from critique_rl.experiment.sweep import trials
from critique_rl.metrics import EVALUATION_METRICS, SHARES
from critique_rl.policy import resolve_model
from critique_rl.prompts import template_names
from critique_rl.sampling.settings import neutral_config
from critique_rl.tasks.load import load_task
from critique_rl.tasks.rewards import build_reward
from critique_rl.tasks.rows.training_set import training_set
from critique_rl.tasks.task import Task
from critique_rl.tasks.workers.command import CommandVerifier
from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
from critique_rl.trainer.plateau import PlateauRule
from critique_rl.trainer.refusals import refuse_missing_column
from critique_rl.trainer.rollout.sampling_options import SamplingWarning, sampling_warnings
from critique_rl.trainer.rollout.success import success_rule
from critique_rl.trainer.teachers.other_model import refuse_other_tokenizer

# It is about a field that TRL's own config sets: nothing a user could change.
warnings.filterwarnings("ignore", "`gradient_checkpointing` is deprecated", FutureWarning)

FEW_PROMPTS = 16
"""Training prompts of a task of the lab that is loaded only to be looked at."""
MOST_LAB_ROWS = 100_000
"""Rows of a world of the lab, which are drawn one by one, some milliseconds each."""
Tasks = dict[str, Task | ConfigError]
"""What arms share is loaded once: the `task:` section as text -> the task, or why it is none."""
Result = TypeVar("Result")


# ---- all commands --------------------------------------------------------------------------------


class TaskNotHere(ConfigError):
    """Data of the Hub that this machine does not reach."""


def check_pipeline(
    pipeline: Pipeline,
    due: Collection[str] | None = None,
    download: bool = True,
    is_elsewhere: bool = False,
) -> list[str]:
    """Refuse what `run` refuses: the one check of `run`, `train` and `plan`.

    Args:
        pipeline: The experiment, with its sweep.
        due: Arms whose runs are still to do; None for all. Others are not asked for a key.
        download: Whether a policy's tokenizer may come from the Hub.
        is_elsewhere: The runs start on other machines: data of the Hub that this one does not reach
            are not looked at.

    Returns:
        Warnings, a line each.

    Raises:
        ConfigError: Every setting that cannot be used, a line each.
    """
    tasks: Tasks = {}
    refusals = setting_refusals(pipeline, is_elsewhere, tasks)
    if refusals:
        raise ConfigError("\n".join(refusals))
    warnings = [f"warning: {sampling}" for sampling in check_sampling(pipeline.arms)]
    warnings += [f"warning: {words}" for words in external_warnings(pipeline.external)]
    arms = {}
    for arm, config in pipeline.arms.items():
        is_due = due is None or arm in due
        if is_due and not (is_elsewhere and _missing_task(config, tasks)):
            arms[arm] = config
    return warnings + refuse_or_warn(foresee(arms, download))


def _missing_task(config: RunConfig, tasks: Tasks) -> str:
    """Why this machine does not reach an arm's data of the Hub; "" where it does."""
    try:
        _load_task(config, tasks)
    except TaskNotHere as error:
        return str(error)
    except (ValueError, OSError, ImportError, TypeError):
        # It is said with the other faults.
        return ""
    return ""


def setting_refusals(
    pipeline: Pipeline, is_elsewhere: bool = False, tasks: Tasks | None = None
) -> list[str]:
    """A sentence for each setting that cannot be used, those of a sweep's trials included.

    Args:
        pipeline: The experiment.
        is_elsewhere: See `check_pipeline`.
        tasks: Tasks that are loaded, to which others are added.
    """
    if tasks is None:
        tasks = {}
    refusals = _arms_refusals(pipeline, tasks, is_elsewhere)
    if not refusals:
        refusals = _claim_refusals(pipeline, tasks, is_elsewhere)
    # Trials have the same settings but for one option: what is wrong would be said again.
    if not refusals and pipeline.sweep is not None:
        refusals = _arms_refusals(trials(pipeline), tasks, is_elsewhere)
    return refusals


def check_started(pipeline: Pipeline, folder: PipelineFolder) -> None:
    """Refuse runs that would go on with other inputs than they were started with.

    Raises:
        ConfigError: The first such run.
    """
    # Runs that follow a sweep look themselves: their settings are not chosen yet.
    if pipeline.sweep is not None:
        pipeline = trials(pipeline)
        folder = folder.sweep
    for arm, config in pipeline.arms.items():
        for seed in pipeline.seeds:
            run = folder.run(arm, seed)
            if run.config.exists() and not run.finished:
                check_inputs(run, config, seed)


def _arms_refusals(pipeline: Pipeline, tasks: Tasks, is_elsewhere: bool) -> list[str]:
    """The faults of all arms; one that several arms share stands there once."""
    arms_by_fault: dict[str, list[str]] = {}
    for arm, config in pipeline.arms.items():
        faults = _arm_faults(config, tasks, is_elsewhere)
        _collect(faults, _check_primary, pipeline.primary, config, tasks)
        missing = _missing_task(config, tasks) if is_elsewhere else ""
        for fault in faults:
            if missing and fault == _one_text(missing):
                continue
            arms_by_fault.setdefault(fault, []).append(arm)
    refusals = []
    for fault, arms in arms_by_fault.items():
        noun = "arms" if len(arms) > 1 else "arm"
        refusals.append(f"{noun} {', '.join(arms)}: {fault}")
    return refusals


def _claim_refusals(pipeline: Pipeline, tasks: Tasks, is_elsewhere: bool) -> list[str]:
    """The faults of the claim, if there is one; its metrics would be missing after all training."""
    refusals: list[str] = []
    claim = _collect(refusals, parse_claim, pipeline)
    config = pipeline.arms[pipeline.control]
    if claim is None or (is_elsewhere and _missing_task(config, tasks)):
        return refusals
    for i, test in enumerate(claim.tests, start=1):
        _collect(refusals, _check_metric, f"claim, test {i}", test.metric, config, tasks)
    return refusals


def check_arms(arms: Mapping[str, RunConfig]) -> None:
    """Check the settings of all arms, without training or loading a policy.

    Raises:
        ConfigError: The first setting that a run would refuse, with the name of its arm.
    """
    tasks: Tasks = {}
    for arm, config in arms.items():
        for fault in _arm_faults(config, tasks):
            raise ConfigError(f"arm {arm}: {fault}")


def _collect(faults: list[str], check: Callable[..., Result], *arguments: Any) -> Result | None:
    """The result of a check; None where it fails, and then `faults` has why."""
    try:
        return check(*arguments)
    # TypeError: a value of a wrong form that a verifier or a user's class takes no further.
    except (ValueError, TypeError, OSError, ImportError) as error:
        words = _one_text(str(error))
        if words not in faults:
            faults.append(words)
        return None


def _one_text(words: str) -> str:
    """An error's words without empty lines."""
    return "\n".join(line for line in words.splitlines() if line.strip())


def _arm_faults(config: RunConfig, tasks: Tasks, is_elsewhere: bool = False) -> list[str]:
    """Build everything but policy and trainer; why what cannot be built cannot, a text each."""
    faults: list[str] = []
    # Nothing is written here, so the folder needs no place.
    arguments = _collect(faults, trainer_arguments, config, RunFolder(Path("unused")))
    _collect(faults, _check_policy, config)
    _collect(faults, check_local_critic, config, is_elsewhere)
    _collect(faults, _check_teacher_model, config)
    if arguments is not None:
        for check in LIBRARY_CHECKS:
            if is_elsewhere:
                _collect(faults, check_elsewhere, check, config, arguments)
            else:
                _collect(faults, check, config, arguments)
    _collect(faults, _check_templates, config)
    _collect(faults, _check_lab_size, config)
    if config.plateau is not None:
        _collect(faults, plateau_rule, config.plateau)
    task = _collect(faults, _load_task, config, tasks)
    if task is None:
        return faults
    critics: list[Critic | None] = []
    _collect(faults, _build_into, critics, config, task)
    _collect(faults, _check_best_by, config, task)
    _collect(faults, _check_plateau_family, config, task)
    _collect(faults, _check_exact, config, task)
    _collect(faults, _check_flow, config, task)
    if arguments is None:
        return faults
    _collect(faults, _check_branch_points, config, arguments)
    _collect(faults, _check_rows, config, task, arguments)
    _collect(faults, _check_column, task, arguments)
    _collect(faults, _check_trl_pairs, arguments)
    if critics:
        _collect(faults, _check_reward, config, task, arguments, critics[0])
        _collect(faults, arguments.check_trains, critics[0] is not None)
    return faults


def _check_policy(config: RunConfig) -> None:
    """Refuse a policy that is not there; of the Hub only a run knows.

    Raises:
        ConfigError: No such folder, or a package that is not installed.
    """
    try:
        model = resolve_model(config.policy.model)
        if not Path(model).is_dir():
            validate_repo_id(model)
    # A name that the Hub could not have is a ValueError.
    except (OSError, ValueError) as error:
        raise ConfigError(f"policy: {error}") from error


def _check_teacher_model(config: RunConfig) -> None:
    """Refuse a teacher's model that is not there, or whose tokenizer is not the policy's; of the
    Hub only a run knows.

    Raises:
        ConfigError: As said.
    """
    teacher = config.method.get("distill_teacher")
    # Others are refused with the trainer's arguments.
    if not isinstance(teacher, Mapping) or "base_url" in teacher:
        return
    name = str(teacher.get("model"))
    try:
        folder = Path(resolve_model(name))
        if not folder.is_dir():
            validate_repo_id(name)
        policy = Path(resolve_model(config.policy.model))
    except (OSError, ValueError) as error:
        raise ConfigError(f"method.distill_teacher.model: {error}") from error
    if not folder.is_dir() or not policy.is_dir():
        return
    try:
        tokenizers = [AutoTokenizer.from_pretrained(path) for path in (folder, policy)]
    # Loading them will tell.
    except (OSError, ValueError):
        return
    refuse_other_tokenizer(name, *tokenizers)


def _build_into(critics: list[Critic | None], config: RunConfig, task: Task) -> None:
    """Append the arm's critic, which is None for the kind none.

    Raises:
        ConfigError: A `critic:` section that cannot be used.
    """
    critics.append(build_critic(config.critic, task))


def _check_reward(
    config: RunConfig, task: Task, arguments: CritiqueGRPOConfig, critic: Critic | None
) -> None:
    """Refuse a reward, or a rule of success on it, that cannot work.

    Raises:
        ValueError: The first setting that cannot be used.
    """
    assert arguments.num_generations is not None, "TRL's arguments refuse null"
    rewards, weights = build_reward(config.reward, task.verifier, arguments.num_generations)
    given = config.trl.get("reward_weights")
    if given is not None and list(given) != weights:
        raise ConfigError(
            f"trl.reward_weights: got {given!r}, expected {weights}, those of the reward: section; "
            "leave it out"
        )
    if len(rewards) > 1:
        arguments.success_reward = arguments.success_reward or "correct"
    names = [reward.__name__ for reward in rewards]
    success_rule(rewards, names, weights, arguments, critic is not None)


def _check_lab_size(config: RunConfig) -> None:
    """Refuse sizes that a world of the lab could not be drawn to in a day.

    Raises:
        ConfigError: Too many rows.
    """
    if not config.task.name.startswith("lab/"):
        return
    sizes = {
        "task.size": config.task.size,
        "evaluation.problems": config.evaluation.problems,
        "evaluation.curve_problems": config.evaluation.curve_problems,
    }
    for name, size in sizes.items():
        if size > MOST_LAB_ROWS:
            raise ConfigError(
                f"{name}: got {size}, expected at most {MOST_LAB_ROWS} of {config.task.name}"
            )


def _load_task(config: RunConfig, tasks: Tasks) -> Task:
    """The arm's task, as large as the run has it, and its held-out problems.

    Raises:
        ConfigError: The task cannot be loaded, or has too few problems.
    """
    section = config.task
    is_lab = section.name.startswith("lab/")
    if is_lab and section.repeat_one is None:
        # Drawing them all takes seconds, and the worlds have enough.
        section = replace(section, size=min(section.size, FEW_PROMPTS))
    evaluation = config.evaluation
    key = repr((section, evaluation.split, evaluation.problems, evaluation.curve_problems))
    if key not in tasks:
        try:
            tasks[key] = _load_all(section, evaluation)
        except ConfigError as error:
            # What the Hub does not give is not asked for again.
            tasks[key] = error
            if _is_of_hub(section) and str(error).startswith("cannot read "):
                tasks[key] = TaskNotHere(str(error))
    loaded = tasks[key]
    if isinstance(loaded, ConfigError):
        raise loaded
    return loaded


def _load_all(section: TaskConfig, evaluation: EvaluationConfig) -> Task:
    """A task whose held-out problems have been asked for, and gold answers of a program judged.

    Raises:
        ConfigError: As `_load_task`, or the program judges nothing.
    """
    task = load_task(section, 0)
    if isinstance(task.verifier, CommandVerifier):
        warning = task.verifier.check_gold_answers(task.train)
        if warning:
            say(f"warning: {warning}")
    if section.name not in SLOW_WORLDS:
        task.held_out(evaluation.split, evaluation.problems)
        if evaluation.curve_every:
            task.held_out("validation", evaluation.curve_problems)
    return task


def _is_of_hub(section: TaskConfig) -> bool:
    """Whether the rows of a task are no files of this machine."""
    source = str(section.options.get("train", ""))
    is_path = source.startswith((".", "/", "~")) or Path(source).exists()
    return section.name == "data" and not is_path and not Path(source).suffix


SLOW_WORLDS = ("lab/chain", "lab/legs")
"""Their held-out problems are drawn for seconds, and there are more than anyone asks for."""


def _check_rows(config: RunConfig, task: Task, arguments: CritiqueGRPOConfig) -> None:
    """Refuse fewer training prompts than one generation takes.

    Raises:
        ConfigError: TRL leaves out a last part of prompts, here all, and would train nothing.
    """
    rows = len(task.train)
    if config.task.name.startswith("lab/"):
        rows = config.task.size
    if not rows:
        raise ConfigError(
            f"task {task.name}: the training set is empty; raise task.size or check task.families"
        )
    assert arguments.generation_batch_size is not None, "TRL's arguments fill it in"
    assert arguments.num_generations is not None, "TRL's arguments refuse null"
    prompts = arguments.generation_batch_size // arguments.num_generations
    if rows < prompts:
        raise ConfigError(
            f"task.size: got {rows} training prompts, expected at least {prompts}, those of one "
            "generation (trl.per_device_train_batch_size and steps_per_generation by "
            "num_generations); give more, or lower them"
        )


def _check_trl_pairs(arguments: CritiqueGRPOConfig) -> None:
    """Refuse what TRL refuses once its trainer has the policy.

    Raises:
        ValueError: An unknown tracker, or a reference model that nothing reads.
    """
    get_reporting_integration_callbacks(arguments.report_to)
    if arguments.sync_ref_model and not arguments.beta:
        raise ConfigError(
            "trl.sync_ref_model: got true with beta 0, which reads no reference model; "
            "leave it out, or set trl.beta above 0"
        )


def _check_column(task: Task, arguments: CritiqueGRPOConfig) -> None:
    """Refuse expert traces of a column that the task has not.

    Raises:
        ValueError: No such column.
    """
    if arguments.refine_column is not None:
        dataset = training_set(task.train[:FEW_PROMPTS])
        refuse_missing_column(dataset, arguments.refine_column, "refine_column")


# ---- settings of an arm --------------------------------------------------------------------------


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
        ConfigError: A step within a generation.
    """
    # Checkpoints are written where a generation is used up: TRL keeps no half-used one.
    assert arguments.steps_per_generation is not None, "TRL's arguments fill it in"
    micro_batches = arguments.steps_per_generation * arguments.num_iterations
    period = max(1, micro_batches // arguments.gradient_accumulation_steps)
    steps = [("a step to branch at", step) for step in config.keep_steps]
    if config.plateau is not None:
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
    """Refuse a `best_by` or a `stop_above` that the learning curve does not have.

    Raises:
        ConfigError: No such metric.
    """
    metrics = [f"pass@1/{family}" for family in _validation_families(task)]
    best_by = config.evaluation.best_by
    if best_by and best_by not in metrics:
        raise ConfigError(f"evaluation.best_by: no metric {best_by!r}; {suggest(best_by, metrics)}")
    for name in config.evaluation.stop_above:
        if name not in metrics:
            raise ConfigError(
                f"evaluation.stop_above: no metric {name!r}; {suggest(name, metrics)}"
            )


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


def _check_exact(config: RunConfig, task: Task) -> None:
    """Refuse chances of right answers in a task that lists none, and under a cut softmax.

    Raises:
        ConfigError: As said.
    """
    if not config.evaluation.exact:
        return
    refuse_cut(evaluation_sampling(config), "evaluation.exact")
    if task.support is None:
        raise ConfigError(
            f"evaluation.exact: got true with task {task.name}, whose right answers cannot be "
            "listed; set it to false"
        )


def _check_flow(config: RunConfig, task: Task) -> None:
    """Refuse masses while training that cannot be taken.

    Raises:
        ConfigError: The task's completions cannot be listed, no problem has the family, or
            rollouts are not samples of the softmax.
    """
    flow = config.flow
    if flow is None:
        return
    refuse_cut(training_sampling(config))
    if not (flow.every or flow.account):
        return
    if task.support is None:
        raise ConfigError(
            f"flow.every: got {flow.every} with task {task.name}, whose completions cannot be "
            "listed; set it to 0, and flow.snapshots for masses after training"
        )
    if not flow.account:
        return
    if not flow.every:
        raise ConfigError("flow.account: got every 0; set flow.every, such as 10")
    rows = task.held_out(config.evaluation.split, 1)
    families = {"all", *[str(row["family"]) for row in rows]}
    if flow.account not in families:
        raise ConfigError(
            f"flow.account: no family {flow.account!r}; {suggest(flow.account, families)}"
        )


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
    _check_primary(primary, config, {})


def _check_primary(primary: str, config: RunConfig, tasks: Tasks) -> None:
    """`check_primary` with the tasks that are loaded. Raises ConfigError as it does."""
    _check_metric("primary", primary, config, tasks)


def _check_metric(where: str, metric: str, config: RunConfig, tasks: Tasks) -> None:
    """Check that the evaluation of an arm will hold a metric. Raises ConfigError."""
    task = _load_task(config, tasks)
    rows = task.held_out(config.evaluation.split, 1)
    families = {str(row["family"]) for row in rows} | {"all"}
    samples = config.evaluation.samples
    # A k above the samples is left out of the evaluation.
    ks = [k for k in config.evaluation.ks if k <= samples]
    pass_metrics = [f"pass@{k}/{family}" for k in ks for family in families]
    shares = [f"{name}/{family}" for name in SHARES for family in families]
    if config.evaluation.exact:
        for k in config.evaluation.ks:
            shares += [f"exact@{k}/{family}" for family in families]
    if metric not in (*pass_metrics, *EVALUATION_METRICS, *shares):
        # Only pass@k is suggested: not every task has the other metrics.
        raise ConfigError(
            f"{where}: no metric {metric!r} with these evaluation.ks and families; "
            f"{suggest(metric, pass_metrics)}"
        )
