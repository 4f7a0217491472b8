"""The `Setup` of a pipeline's runs: their config.yaml, and what their evaluations were taken by.

Left out: the pipeline file, which somebody may have edited since, and the machine this runs on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from critique_rl.analysis.comparison import Comparison
from critique_rl.analysis.evaluations import Evaluation, read_evaluation
from critique_rl.analysis.page.configs import Configs, FlatConfig, read_configs
from critique_rl.analysis.paper.preset_source import preset_source
from critique_rl.analysis.paper.setup import ArmSetup, EvaluationSetup, Setting, Setup
from critique_rl.analysis.paper.words import lost_arms
from critique_rl.config.run_folder import PipelineFolder

TRAINING = (
    "task.size",
    "trl.learning_rate",
    "trl.lr_scheduler_type",
    "trl.warmup_ratio",
    "trl.warmup_steps",
    "trl.optim",
    "trl.max_grad_norm",
    "trl.num_generations",
    "trl.per_device_train_batch_size",
    "trl.gradient_accumulation_steps",
    "trl.steps_per_generation",
    "trl.num_iterations",
    "trl.max_completion_length",
    "trl.temperature",
    "trl.top_p",
    "trl.beta",
    "trl.epsilon",
    "trl.epsilon_high",
    "trl.loss_type",
    "trl.scale_rewards",
    "trl.max_steps",
    "trl.num_train_epochs",
    "reward.kind",
    "critic.kind",
    "critique_from",
    "evaluation.best_by",
)
"""Settings of training that are said where all arms have them."""
BUDGETS = {
    "generated_tokens": "generated tokens",
    "optimizer_steps": "optimizer steps",
    "total_tokens": "tokens in all",
    "flops": "FLOPs",
    "usd": "US dollars",
}
"""Key of `budget:` -> its words."""
DECODING = {
    "samples": "samples per problem",
    "temperature": "temperature",
    "top_p": "top-p",
    "max_new_tokens": "new tokens at most",
}
"""Key of eval.json -> its words."""
NOT_METHODS = ("deviates.", "budget.", "preset", "evaluation.")
"""Beginnings of keys that the paragraph says elsewhere."""
NO_VALUE = "-"
"""How `Configs` spells a value that is not there."""


@dataclass(frozen=True)
class Presets:
    """What is known of the presets of this version."""

    docstrings: Mapping[str, str]
    """Preset -> docstring with paper, equation and differences, indentation removed."""
    inputs: Mapping[str, str]
    """ "preset <name>" -> checksum of its options, as a run's `inputs` have it."""


def read_setup(folder: PipelineFolder, comparison: Comparison, presets: Presets) -> Setup:
    """Read how the runs of a comparison were trained and judged.

    Args:
        folder: the pipeline's runs.
        comparison: of these runs.
        presets: this room lies below the one that defines them.

    Raises:
        ConfigError: an eval.json is damaged.
    """
    arms = [*comparison.arms, *lost_arms(comparison)]
    runs = {}
    for arm in arms:
        runs[arm] = {seed: folder.run(arm, seed) for seed in comparison.seeds}
    configs = read_configs(runs)
    return Setup(
        task=_task(configs),
        policy=_only(configs, "policy.model"),
        shared=_shared(configs),
        differing=_differing(configs),
        uneven=tuple(configs.uneven()),
        arms={arm: _arm_setup(configs.first(arm), presets) for arm in configs.arms},
        budget=_budget(configs),
        evaluation=_evaluation(folder, comparison),
        curves=_curves(configs),
        versions=tuple(configs.section("versions")),
        machines=tuple(configs.section("machine")),
    )


def _only(configs: Configs, key: str) -> str:
    """The value that all arms have; "" where they differ or none has one."""
    for _, value in configs.shared([key]):
        if value != NO_VALUE:
            return value
    return ""


def _task(configs: Configs) -> str:
    name = _only(configs, "task.name")
    if not name:
        return ""
    flat = configs.first(configs.arms[0])
    options = []
    for key, value in configs.shared(key for key in flat if key.startswith("task.options.")):
        options.append(f"{key.removeprefix('task.options.')} {value}")
    mix = []
    for key, value in configs.shared(key for key in flat if key.startswith("task.families.")):
        mix.append(f"{key.removeprefix('task.families.')} {value}")
    if options:
        name += f" with {', '.join(options)}"
    if mix:
        name += f" (share of training prompts: {', '.join(mix)})"
    return name


def _shared(configs: Configs) -> tuple[Setting, ...]:
    settings = []
    for key, value in configs.shared(TRAINING):
        if value != NO_VALUE:
            settings.append((key.removeprefix("trl."), value))
    return tuple(settings)


def _differing(configs: Configs) -> tuple[str, ...]:
    clauses = []
    for key, values in configs.differing():
        if not key.startswith(NOT_METHODS):
            pairs = zip(configs.arms, values, strict=True)
            words = []
            for arm, value in pairs:
                if value != NO_VALUE:
                    words.append(f"{arm} {value}")
            listed = ", ".join(words)
            clauses.append(f"{key} ({listed})")
    return tuple(clauses)


def _arm_setup(flat: FlatConfig, presets: Presets) -> ArmSetup:
    name = str(flat.get("preset") or "")
    if not name:
        return ArmSetup(preset="")
    known = preset_source(name, presets.docstrings)
    key = f"preset {name}"
    then = flat.get(f"inputs.{key}")
    now = presets.inputs.get(key)
    return ArmSetup(
        preset=name,
        source=known.source,
        differences=known.differences,
        deviates=_deviations(flat),
        changed_since=then is not None and then != now,
    )


def _deviations(flat: FlatConfig) -> tuple[str, ...]:
    """The settings of `deviates`, each {"preset": a value, "run": a value} in config.yaml."""
    settings = []
    for key, value in flat.items():
        if key.startswith("deviates.") and key.endswith(".run"):
            stem = key.removesuffix(".run")
            before = flat.get(f"{stem}.preset")
            name = stem.removeprefix("deviates.")
            settings.append(f"{name} {_value(value)} instead of {_value(before)}")
    return tuple(settings)


def _value(value: Any) -> str:
    if value is None:
        return "none"
    return str(value)


def _budget(configs: Configs) -> str:
    """When a run ends, as a sentence; "" where no budget is the same for all arms."""
    for name, words in BUDGETS.items():
        for _, value in configs.shared([f"budget.{name}"]):
            if value != NO_VALUE:
                return f"A run ends at the first step at or above {_amount(value)} {words}."
    return ""


def _amount(text: str) -> str:
    """Digits in groups of three, which other numbers do not need."""
    if text.isdigit():
        return f"{int(text):,}"
    return text


def _evaluation(folder: PipelineFolder, comparison: Comparison) -> EvaluationSetup:
    """Of the first evaluation: all that are compared were taken alike."""
    for arm, summary in comparison.arms.items():
        for metric in summary.metrics.values():
            for seed in metric.per_seed:
                path = folder.run(arm, int(seed)).evaluation
                return _described(read_evaluation(path, arm, int(seed)))
    return EvaluationSetup()


def _described(evaluation: Evaluation) -> EvaluationSetup:
    families: dict[str, int] = {}
    for problem in evaluation.problems.values():
        families[problem.family] = families.get(problem.family, 0) + 1
    settings = []
    for key, words in DECODING.items():
        value = evaluation.protocol.get(key)
        if value is not None:
            settings.append((words, str(value)))
    split = str(evaluation.protocol.get("split") or "")
    return EvaluationSetup(split=split, families=families, settings=tuple(settings))


def _curves(configs: Configs) -> str:
    problems = _only(configs, "evaluation.curve_problems")
    samples = _only(configs, "evaluation.curve_samples")
    every = _only(configs, "evaluation.curve_every")
    if not (problems and samples and every) or every == "0":
        return ""
    return (
        f"Learning curves are of validation problems ({problems} per family, {samples} samples "
        f"each), every {every} steps."
    )
