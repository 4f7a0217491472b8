"""From the configuration of a run to its trainer: arguments, policy, device.

Left out: the settings of the machine (ranks, sharding), which `accelerate launch` gives.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
import trl
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer import TRAINING_ARGS_NAME

from critique_rl.config.checks import ConfigError, check_keys
from critique_rl.config.durable_files import DamagedFile
from critique_rl.config.folder_checksums import first_fault
from critique_rl.config.run_folder import RunFolder
from critique_rl.config.schema import RunConfig
from critique_rl.critic.build import build_critic
from critique_rl.experiment.foresight.trl_values import check_trl_values
from critique_rl.experiment.rollout_log import write_rollouts
from critique_rl.policy import load_policy
from critique_rl.sampling.sample import prompt_lengths
from critique_rl.sampling.settings import neutral_config
from critique_rl.tasks.rewards import build_reward
from critique_rl.tasks.rows.training_set import training_set
from critique_rl.tasks.task import Task
from critique_rl.trainer.critique_grpo import CritiqueGRPOTrainer
from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
from critique_rl.trainer.model_card import CARD
from critique_rl.trainer.presets import preset
from critique_rl.trainer.rollout.generation import Generation
from critique_rl.trainer.rollout.sampling_options import rollout_sampling

GRPO_FIELDS = {f.name for f in fields(trl.GRPOConfig)}
METHOD_FIELDS = {f.name for f in fields(CritiqueGRPOConfig)} - GRPO_FIELDS

FIXED = {
    "save_only_model": (False, "a run that is killed could not go on exactly"),
    "save_strategy": (
        "steps",
        "runs are continued from their checkpoints; save_steps and save_total_limit say how many",
    ),
    "eval_strategy": (
        "no",
        "policies are judged by the evaluation: section, and curves by its curve_every",
    ),
    "logging_steps": (1, "metrics.jsonl has one row a step, so that a continued run has the same"),
}
"""TRL option -> (the only allowed value, the reason): what a run folder's promises need."""
LOAD_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    ImportError,
    RuntimeError,
    EOFError,
    pickle.UnpicklingError,
    SafetensorError,
)
"""What libraries raise for a model's damaged files."""
WEIGHTS = "model_files"
"""Key of eval.json: path within the folder model -> checksum."""
UNSEALED = (CARD, TRAINING_ARGS_NAME)
"""Files of a policy without a checksum: people write in one, and nobody loads the other."""
PUT_BACK = "put back a copy, or remove the run's folder to train it again"
NO_STEP_LIMIT = 1_000_000
NO_CONTEXT_LIMIT = 1 << 30


def trainer_arguments(config: RunConfig, folder: RunFolder) -> CritiqueGRPOConfig:
    """The `preset:`, `trl:` and `method:` sections as TRL's arguments.

    Args:
        config: An arm, resolved. Its explicit keys beat those of its preset.
        folder: Where checkpoints go.

    Raises:
        ConfigError: An unknown option, or a value that cannot be used.
    """
    _check_option_names(config)
    _check_fixed_options(config)
    preset_options = preset(config.preset) if config.preset else {}
    check_trl_values(config.trl, fields(trl.GRPOConfig))
    options = {
        **_default_options(),
        "max_steps": _max_steps(config),
        **preset_options,
        **config.trl,
        **config.method,
    }
    try:
        return CritiqueGRPOConfig(output_dir=str(folder.checkpoints), **options)
    except ConfigError:
        raise
    # transformers and TRL let Python's errors through for values of a wrong form.
    except Exception as error:
        words = " ".join(str(error).split())
        raise ConfigError(f"trl/method: {words}") from error


def _check_option_names(config: RunConfig) -> None:
    """Refuse options that neither TRL nor this package has.

    Raises:
        ConfigError: An unknown option, or one in the wrong section.
    """
    for key in config.trl:
        if key in METHOD_FIELDS:
            raise ConfigError(f"trl: {key!r} is an option of ours; move it to the method: section")
    options = {option.name for option in fields(trl.GRPOConfig) if option.init}
    check_keys(config.trl, options, "trl")
    check_keys(config.method, METHOD_FIELDS, "method")


def _check_fixed_options(config: RunConfig) -> None:
    """Refuse values that would break a promise of the run folder.

    Raises:
        ConfigError: Another value than that of `FIXED`.
    """
    for key, (allowed, reason) in FIXED.items():
        if config.trl.get(key, allowed) != allowed:
            raise ConfigError(f"trl.{key}: got {config.trl[key]!r}, expected {allowed!r}: {reason}")


def _default_options() -> dict[str, Any]:
    """Options that suit a run folder, and a CPU where there is no GPU: float32, no tracker."""
    has_gpu = torch.cuda.is_available()
    return {
        # TRL's own default is True on a CPU too, and it casts the weights that are trained.
        "bf16": has_gpu,
        "gradient_checkpointing": has_gpu,
        "use_cpu": not has_gpu,
        "report_to": "none",
        "logging_steps": 1,
        "lr_scheduler_type": "constant",
        "save_strategy": "steps",
        "save_steps": 50,
        # Two, so that a damaged checkpoint has one before it to fall back to.
        "save_total_limit": 2,
        # In a log file each refresh of the bar would be a line.
        "disable_tqdm": not sys.stderr.isatty(),
    }


def _max_steps(config: RunConfig) -> int:
    if config.budget.optimizer_steps:
        return config.budget.optimizer_steps
    # The budget ends the run; the cap only bounds a run whose completions are all but empty.
    if config.budget.limit:
        return NO_STEP_LIMIT
    return -1


def load_start_policy(config: RunConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The policy before training.

    Raises:
        ConfigError: No such model.
    """
    try:
        return load_weights(config, config.policy.model, **config.policy.options)
    except LOAD_ERRORS as error:
        # FileNotFoundError from `load_policy`, what transformers raises for a name that is neither
        # a folder nor on the Hub or for unknown options, and what libraries raise for damaged
        # files.
        words = " ".join(str(error).split())[:500]
        raise ConfigError(f"policy: {words}") from error


def load_weights(
    config: RunConfig, model_path: str, **options: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Weights of a run, before or after training, with the generation settings of its policy.

    Args:
        config: The run.
        model_path: A folder, a Hub id or a name of `policy`.
        **options: Arguments of `from_pretrained`.
    """
    model, tokenizer = load_policy(model_path, **options)
    # Any: transformers annotates no generation_config on PreTrainedModel.
    policy: Any = model
    if config.policy.generation_config == "neutral":
        policy.generation_config = neutral_config(policy.generation_config)
    return model, tokenizer


def load_trained(
    config: RunConfig, folder: RunFolder, evaluation: Mapping[str, Any]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The policy of a finished run.

    Args:
        config: The run.
        folder: Its folder.
        evaluation: Its eval.json, which has checksums of the policy's files; those of earlier
            versions have none.

    Raises:
        DamagedFile: The files are not those that the run left, or cannot be loaded.
    """
    checksums = evaluation.get(WEIGHTS)
    words = ""
    if not folder.model.is_dir():
        words = "it is missing"
    elif isinstance(checksums, dict):
        words = first_fault(folder.model, checksums, UNSEALED)
    if words:
        raise DamagedFile(folder.model, words, PUT_BACK)
    try:
        # An absolute path, which no Hub id can be taken for.
        return load_weights(config, str(folder.model.resolve()))
    except LOAD_ERRORS as error:
        raise DamagedFile(folder.model, str(error), PUT_BACK) from error


def move_to_device(model: nn.Module) -> None:
    """Put a model where a trainer would put it."""
    if torch.accelerator.is_available():
        model.to(torch.accelerator.current_accelerator())
    else:
        model.to("cpu")


def build_trainer(
    config: RunConfig, folder: RunFolder, task: Task, seed: int
) -> CritiqueGRPOTrainer:
    """Build policy, reward, critic and trainer of one run.

    Raises:
        ConfigError: Settings that do not fit together, the policy or the task.
    """
    arguments = trainer_arguments(config, folder)
    critic = build_critic(config.critic, task, seed, folder.critic)
    if "refine_template" not in config.method:
        arguments.refine_template = f"{task.prompts}refine"
    if "distill_template" not in config.method:
        arguments.distill_template = f"{task.prompts}teacher"
    if not task.train:
        raise ConfigError(
            f"task {task.name}: the training set is empty; raise task.size or check task.families"
        )
    model, tokenizer = load_start_policy(config)
    _check_prompt_lengths(task, tokenizer, model, arguments)
    dataset = training_set(task.train)
    assert arguments.num_generations is not None, "TRL's arguments refuse null"
    rewards, weights = build_reward(config.reward, task.verifier, arguments.num_generations, seed)
    if len(weights) > 1:
        arguments.reward_weights = weights
        # `build_reward` puts it beside every other reward.
        arguments.success_reward = arguments.success_reward or "correct"
    try:
        trainer = CritiqueGRPOTrainer(
            model,
            rewards,
            arguments,
            dataset,
            critic=critic,
            teacher_folder=folder.teacher,
            processing_class=tokenizer,
        )
    except ValueError as error:
        raise ConfigError(f"trl/method: {error}") from error
    _add_run_settings(trainer, config, folder)
    return trainer


def _add_run_settings(trainer: CritiqueGRPOTrainer, config: RunConfig, folder: RunFolder) -> None:
    """Give the trainer what a run has and a plain trainer has not: budget, prices, rollout log."""
    trainer.budget = config.budget.limit
    trainer.prices = config.prices
    trainer.kept_steps |= set(config.keep_steps)
    if config.critique_from == "plateau":
        trainer.hold_critique()

    def log_rollouts(batch: Generation, advantages: list[float]) -> None:
        # The step counter moves after the update: these rollouts are those of the next step.
        step = trainer.state.global_step + 1
        rank = trainer.accelerator.process_index
        write_rollouts(folder, step, rank, batch, advantages, trainer.identity)

    trainer.on_generation = log_rollouts


def _check_prompt_lengths(
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    arguments: CritiqueGRPOConfig,
) -> None:
    """Refuse prompts that leave no room for a completion of the longest length.

    Raises:
        ConfigError: The longest prompt and completion exceed the policy's context.
    """
    sampling = rollout_sampling(vars(arguments))
    max_completion = arguments.max_completion_length
    if max_completion is None:
        raise ConfigError("trl.max_completion_length: got null, expected a number of tokens")
    # Not every architecture states a context.
    context = getattr(model.config, "max_position_embeddings", None) or NO_CONTEXT_LIMIT
    prompts = [row["prompt"] for row in task.train]
    longest = max(prompt_lengths(tokenizer, prompts, sampling.chat_template_kwargs), default=0)
    if longest + max_completion > context:
        raise ConfigError(
            f"the longest prompt has {longest} tokens and max_completion_length is "
            f"{max_completion}: together over the policy's context of {context}"
        )
