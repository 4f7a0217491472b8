"""The arms of a pipeline file, each resolved to a RunConfig and checked.

An arm is the rest of the file with a few keys replaced: `arms.critique.critic` overrides `critic`,
`arms.critique.trl.learning_rate` overrides `trl.learning_rate`. TRL's options pass through the
`trl:` section untouched; their names are checked where TRL is imported anyway (`train`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from critique_rl.config.checks import ConfigError, check_keys, read_mapping, read_section, suggest
from critique_rl.config.names import check_names
from critique_rl.config.ranges import check_ranges
from critique_rl.config.schema import (
    BranchConfig,
    BudgetConfig,
    EvaluationConfig,
    FlowConfig,
    PlateauConfig,
    PolicyConfig,
    RunConfig,
    TaskConfig,
    TrackingConfig,
)
from critique_rl.costs import Prices

SECTIONS: dict[str, type[Any]] = {
    "task": TaskConfig,
    "policy": PolicyConfig,
    "budget": BudgetConfig,
    "prices": Prices,
    "evaluation": EvaluationConfig,
    "plateau": PlateauConfig,
    "flow": FlowConfig,
    "tracking": TrackingConfig,
    "branch_from": BranchConfig,
}
"""Sections of an arm with fixed keys, and their classes."""
KIND_EXAMPLES = {"critic": "oracle", "reward": "rlcr"}
"""Sections with a kind, and an example of one. An arm replaces them completely, since the keys of
one kind mean nothing to another.
"""
RUN_KEYS = tuple(field.name for field in fields(RunConfig))
DATA_ORDER = (
    "per_device_train_batch_size",
    "steps_per_generation",
    "gradient_accumulation_steps",
    "num_iterations",
    "num_generations",
    "data_seed",
)
"""TRL options that a run's data order depends on, beside the seed."""


def parse_arms(data: Mapping[str, Any]) -> dict[str, RunConfig]:
    """Resolve and check every arm of a pipeline.

    Args:
        data: The pipeline file as read from YAML.

    Returns:
        Name of each arm -> its run. Without `arms:` one arm, "critique" where the file has a
        critic, else "scalar".

    Raises:
        ConfigError: For an arm that cannot be used.
    """
    changes_by_arm = data.get("arms")
    # `arms:` with nothing below it is null in YAML.
    if changes_by_arm is None:
        changes_by_arm = {}
    if not isinstance(changes_by_arm, Mapping):
        raise ConfigError(
            f"arms: got {data['arms']!r}, "
            "expected a mapping from names to what differs, such as {scalar: {}}"
        )
    if not changes_by_arm:
        changes_by_arm = {"critique": {}} if "critic" in data else {"scalar": {}}
    if "base" in changes_by_arm:
        raise ConfigError(
            "arms: 'base' is the policy before training, which every pipeline evaluates; "
            "expected another name for the arm"
        )
    check_names(changes_by_arm, "arms")
    shared = {key: data[key] for key in RUN_KEYS if key in data}
    arms = {}
    for arm, changes in changes_by_arm.items():
        where = f"arm {arm}"
        section = {} if changes is None else read_mapping(changes, where)
        check_keys(section, RUN_KEYS, where)
        arms[arm] = _parse_run(where, _merge(shared, section))
    return _keep_branch_steps(arms)


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested mappings, except for sections with a kind."""
    # Copies: arms share the sections of the file, and none may see another's changes.
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        before = merged.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping) and key not in KIND_EXAMPLES:
            merged[key] = _merge(before, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _parse_run(where: str, data: Mapping[str, Any]) -> RunConfig:
    """A resolved arm's sections -> RunConfig. Raises ConfigError for sections that do not fit."""
    parsed = {}
    for key, value in data.items():
        place = f"{where}, {key}"
        parsed[key] = _parse_key(key, value, place)
    config = RunConfig(**parsed)
    for section, example in KIND_EXAMPLES.items():
        if "kind" not in getattr(config, section):
            raise ConfigError(
                f"{where}, {section}: no 'kind'; expected one such as {{kind: {example}}}"
            )
    check_ranges(config, where)
    _check_curve(where, config)
    _check_budget(where, config)
    return config


def _parse_key(key: str, value: Any, where: str) -> Any:
    """The value of one key of RunConfig. Raises ConfigError for a wrong type."""
    if key in ("plateau", "flow", "branch_from") and value is None:
        return None
    if key == "critique_from":
        if value not in ("start", "plateau"):
            raise ConfigError(f"{where}: got {value!r}, expected start or plateau")
        return value
    if key == "keep_steps":
        return _parse_steps(value, where)
    if key == "preset":
        if not isinstance(value, str):
            raise ConfigError(f"{where}: got {value!r}, expected the name of a preset, such as nsr")
        return value
    if key in SECTIONS:
        return read_section(SECTIONS[key], value, where)
    return read_mapping(value, where)


def _parse_steps(value: Any, where: str) -> tuple[int, ...]:
    """Steps whose checkpoints are kept. Raises ConfigError for anything but a list of them."""
    fits = isinstance(value, list)
    if fits:
        fits = all(_is_step(step) for step in value)
    if fits:
        fits = len(set(value)) == len(value)
    if not fits:
        raise ConfigError(
            f"{where}: got {value!r}, expected a list of different steps, such as [100, 200]"
        )
    return tuple(value)


def _is_step(value: Any) -> bool:
    # bool is a subclass of int, and YAML reads `yes` and `on` as True.
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _check_curve(where: str, config: RunConfig) -> None:
    """Raise ConfigError where a setting needs a learning curve or a plateau that is missing."""
    evaluation = config.evaluation
    if config.critique_from == "plateau" and config.plateau is None:
        raise ConfigError(
            f"{where}: critique_from plateau needs a plateau: section, such as plateau: {{}}"
        )
    if config.plateau is not None and not evaluation.curve_every:
        raise ConfigError(
            f"{where}: a plateau is looked for on the learning curve; set evaluation.curve_every"
        )
    on_curve = evaluation.best_by.startswith("pass@1/") and evaluation.curve_every
    if evaluation.best_by and not on_curve:
        raise ConfigError(
            f"{where}, evaluation.best_by: got {evaluation.best_by!r}, "
            "expected a pass@1 of the learning curve, and curve_every above 0"
        )


def _has_priced_teacher(config: RunConfig) -> bool:
    """Whether a teacher behind a server charges for what it reads."""
    teacher = config.method.get("distill_teacher")
    return isinstance(teacher, Mapping) and bool(teacher.get("prompt_price"))


def _check_budget(where: str, config: RunConfig) -> None:
    """Raise ConfigError for two budgets, one that cannot be counted, or a schedule against it."""
    amounts = {field.name: getattr(config.budget, field.name) for field in fields(BudgetConfig)}
    given = {name: amount for name, amount in amounts.items() if amount is not None}
    if len(given) > 1 or any(amount <= 0 for amount in given.values()):
        listed = ", ".join(f"{name} {amount}" for name, amount in given.items())
        raise ConfigError(f"{where}, budget: got {listed}, expected one of them, above 0")
    prices = config.prices
    has_price = (
        prices.prompt
        or prices.completion
        or prices.training
        or config.critic.get("completion_price")
        or _has_priced_teacher(config)
    )
    if config.budget.usd and not has_price:
        # Without a price nothing is ever spent: only the cap on steps would end the run.
        raise ConfigError(
            f"{where}: a budget in usd needs prices; "
            "give prices: {completion: ...}, or the critic's completion_price"
        )
    warmup = config.trl.get("warmup_steps", 0)
    # transformers reads warmup_steps below 1 as a share of the schedule, which is the budget's.
    if config.budget.limit and warmup >= 1:
        raise ConfigError(
            f"{where}: with such a budget the schedule runs over it: "
            f"got trl.warmup_steps {warmup}, expected a share of it, such as 0.05"
        )


def _keep_branch_steps(arms: Mapping[str, RunConfig]) -> dict[str, RunConfig]:
    """The arms, where those that others branch from keep the checkpoints of the named steps.

    Raises:
        ConfigError: For a `branch_from` that cannot be followed.
    """
    kept = dict(arms)
    for arm, config in arms.items():
        branch = config.branch_from
        if branch is None:
            continue
        _check_branch(arm, config, branch, arms)
        if isinstance(branch.at, int):
            trunk = kept[branch.arm]
            steps = sorted({*trunk.keep_steps, branch.at})
            kept[branch.arm] = replace(trunk, keep_steps=tuple(steps))
    return kept


def _check_branch(
    arm: str, config: RunConfig, branch: BranchConfig, arms: Mapping[str, RunConfig]
) -> None:
    """Raise ConfigError where `arm` cannot go on from the arm that it names."""
    if branch.arm not in arms or branch.arm == arm:
        raise ConfigError(
            f"arm {arm}, branch_from.arm: no other arm {branch.arm!r}; "
            f"{suggest(str(branch.arm), set(arms) - {arm})}"
        )
    trunk = arms[branch.arm]
    if trunk.branch_from is not None:
        raise ConfigError(
            f"arm {arm}, branch_from.arm: {branch.arm!r} branches itself; "
            "branch from the arm it comes from"
        )
    differences = _order_differences(config, trunk)
    if differences:
        # A branch resumes the trunk's checkpoint, and with it a place in the order of prompts.
        name, branch_value, trunk_value = differences[0]
        raise ConfigError(
            f"arm {arm}: branches from {branch.arm!r}, whose {name} is {trunk_value!r}, "
            f"not {branch_value!r}: the data order must be the same"
        )
    _check_branch_step(arm, branch, trunk)


def _check_branch_step(arm: str, branch: BranchConfig, trunk: RunConfig) -> None:
    """Raise ConfigError where the trunk has no such step, or no plateau."""
    if branch.at == "plateau":
        if trunk.plateau is None:
            raise ConfigError(
                f"arm {arm}: branches at the plateau of {branch.arm!r}, "
                "which has no plateau: section; add one, such as plateau: {}"
            )
        return
    is_integer = isinstance(branch.at, int) and not isinstance(branch.at, bool)
    if not is_integer or branch.at < 1:
        raise ConfigError(
            f"arm {arm}, branch_from.at: got {branch.at!r}, expected 'plateau' or an optimizer step"
        )
    last_step = trunk.budget.optimizer_steps
    if last_step and branch.at > last_step:
        raise ConfigError(
            f"arm {arm}, branch_from.at: got {branch.at}, "
            f"but {branch.arm!r} ends at step {last_step}"
        )


def _order_differences(config: RunConfig, trunk: RunConfig) -> list[tuple[str, Any, Any]]:
    """Settings of the data order that differ: (name, the branch's value, the trunk's value)."""
    pairs = [("task", config.task, trunk.task), ("policy", config.policy, trunk.policy)]
    for key in DATA_ORDER:
        pairs.append((f"trl.{key}", config.trl.get(key), trunk.trl.get(key)))
    return [(name, value, other) for name, value, other in pairs if value != other]
