"""From a run's configuration to a trainer: arguments, policy, device."""

from __future__ import annotations

import sys
from dataclasses import fields

import torch
import trl
from datasets import Dataset

from critique_rl.config.checks import ConfigError, check_keys
from critique_rl.config.run_folder import RunFolder
from critique_rl.config.schema import RunConfig
from critique_rl.critic.build import build_critic
from critique_rl.experiment.rollout_log import write_rollouts
from critique_rl.policy import load_policy
from critique_rl.sampling import prompt_lengths
from critique_rl.tasks.rewards import build_reward
from critique_rl.tasks.task import Task
from critique_rl.trainer.critique_grpo import CritiqueGRPOTrainer
from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
from critique_rl.trainer.presets import preset

METHOD_FIELDS = {f.name for f in fields(CritiqueGRPOConfig)} - {
    f.name for f in fields(trl.GRPOConfig)
}

FIXED = {
    "save_only_model": (False, "a run that is killed could not go on exactly"),
    "save_strategy": (
        "steps",
        "runs are continued from their checkpoints; save_steps and save_total_limit say how many",
    ),
    "logging_steps": (1, "metrics.jsonl has one row a step, so that a continued run has the same"),
}
"""TRL options that a run folder's promises need."""


def trainer_arguments(config: RunConfig, folder: RunFolder) -> CritiqueGRPOConfig:
    """The `preset:`, `trl:` and `method:` sections as TRL's arguments, names checked. Defaults suit
    a CPU: float32, no gradient checkpointing, no tracker.
    """
    known = {f.name for f in fields(trl.GRPOConfig) if f.init}
    for key in config.trl:
        if key in METHOD_FIELDS:
            raise ConfigError(f"trl: {key!r} is an option of ours; move it to the method: section")
    check_keys(config.trl, known, "trl")
    check_keys(config.method, METHOD_FIELDS, "method")
    for key, (allowed, why) in FIXED.items():
        if config.trl.get(key, allowed) != allowed:
            raise ConfigError(f"trl.{key}: got {config.trl[key]!r}, expected {allowed!r}: {why}")
    stated = preset(config.preset) if config.preset else {}
    _check_numbers(config)
    cpu = not torch.cuda.is_available()
    defaults = {
        "bf16": not cpu,
        "gradient_checkpointing": not cpu,
        "use_cpu": cpu,
        "report_to": "none",
        "logging_steps": 1,
        "lr_scheduler_type": "constant",
        "save_strategy": "steps",
        "save_steps": 50,
        "save_total_limit": 1,
        "disable_tqdm": not sys.stderr.isatty(),
        "max_steps": _max_steps(config),
    }
    try:
        return CritiqueGRPOConfig(
            output_dir=str(folder.checkpoints),
            **{**defaults, **stated, **config.trl, **config.method},
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"trl/method: {error}") from error


def _check_numbers(config: RunConfig) -> None:
    """Text where TRL wants a number would end the run at its first step, or after."""
    for f in fields(trl.GRPOConfig):
        value, wanted = config.trl.get(f.name), str(f.type)
        if (
            isinstance(value, str)
            and "str" not in wanted
            and ("float" in wanted or "int" in wanted)
        ):
            raise ConfigError(
                f"trl.{f.name}: got {value!r}, expected a number (YAML reads 1e-4 as text; write 1.0e-4)"
            )


def _max_steps(config: RunConfig) -> int:
    if config.budget.optimizer_steps:
        return config.budget.optimizer_steps
    # The budget ends the run; the cap only bounds a run whose completions are all but empty.
    return 1_000_000 if config.budget.of else -1


def _policy(config: RunConfig):
    try:
        return load_policy(config.policy.model, **config.policy.options)
    except OSError as error:
        # FileNotFoundError of ours, and what transformers raises for a name that is neither a
        # folder nor on the Hub.
        raise ConfigError(f"policy: {error}") from error


def _on_device(model, tokenizer):
    """The same pair, the model where a trainer would put it."""
    return model.to(
        torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    ), tokenizer


def build_trainer(
    config: RunConfig, folder: RunFolder, task: Task, seed: int
) -> CritiqueGRPOTrainer:
    """Policy, reward, critic and trainer of one run."""
    arguments = trainer_arguments(config, folder)
    critic = build_critic(config.critic, task, seed, folder.critic)
    for name in ("refine", "distill"):
        if f"{name}_template" not in config.method:
            setattr(
                arguments,
                f"{name}_template",
                f"{task.prompts}{'teacher' if name == 'distill' else name}",
            )
    if not task.train:
        raise ConfigError(
            f"task {task.name}: the training set is empty; raise task.size or check task.families"
        )
    model, tokenizer = _policy(config)
    _check_prompt_lengths(task, tokenizer, model, arguments.max_completion_length)
    dataset = Dataset.from_list([dict(row) for row in task.train])
    rewards, weights = build_reward(config.reward, task.verifier, arguments.num_generations, seed)
    if len(weights) > 1:
        arguments.reward_weights = weights
    try:
        trainer = CritiqueGRPOTrainer(
            model, rewards, arguments, dataset, critic=critic, processing_class=tokenizer
        )
    except ValueError as error:
        raise ConfigError(f"trl/method: {error}") from error
    trainer.budget, trainer.prices = config.budget.of, config.prices
    trainer.kept_steps |= set(config.keep_steps)
    if config.critique_from == "plateau":
        trainer.hold_critique()
    trainer.on_generation = lambda batch, advantages: write_rollouts(
        folder, trainer.state.global_step + 1, trainer.accelerator.process_index, batch, advantages
    )
    return trainer


def _check_prompt_lengths(task: Task, tokenizer, model, completion: int) -> None:
    context = getattr(model.config, "max_position_embeddings", None) or 1 << 30
    longest = max(prompt_lengths(tokenizer, [row["prompt"] for row in task.train]), default=0)
    if longest + completion > context:
        raise ConfigError(
            f"the longest prompt has {longest} tokens and max_completion_length is {completion}: together over the policy's context of {context}"
        )
