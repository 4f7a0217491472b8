"""A pipeline file -> one validated object. Unknown keys fail with "did you mean"; nothing heavy is
imported here.

TRL's own options pass through the `trl:` section untouched; their names are checked where TRL is
imported anyway (`train`). An arm is the pipeline with a few keys replaced: `arms.critique.critic`
overrides `critic`, `arms.critique.trl.learning_rate` overrides `trl.learning_rate`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import yaml

from critique_rl.config.checks import ConfigError, _free, check_keys, read_section, suggest
from critique_rl.config.schema import (
    BranchConfig,
    BudgetConfig,
    EvaluationConfig,
    Pipeline,
    PlateauConfig,
    PolicyConfig,
    RunConfig,
    SweepConfig,
    TaskConfig,
)
from critique_rl.costs import Prices

SECTIONS = {
    "task": TaskConfig,
    "policy": PolicyConfig,
    "budget": BudgetConfig,
    "prices": Prices,
    "evaluation": EvaluationConfig,
}
SECTIONS |= {"plateau": PlateauConfig, "branch_from": BranchConfig}
KINDS_OF = {"critic": "oracle", "reward": "rlcr"}
"""Sections with a kind, and one: an arm replaces them whole, since the keys of one kind mean
nothing to another.
"""
RUN_KEYS = tuple(f.name for f in fields(RunConfig))
DATA_ORDER = (
    "per_device_train_batch_size",
    "steps_per_generation",
    "gradient_accumulation_steps",
    "num_iterations",
    "num_generations",
    "data_seed",
)
"""TRL options that a run's data order depends on, beside the seed."""
PIPELINE_KEYS = (
    *RUN_KEYS,
    "seeds",
    "primary",
    "control",
    "target",
    "sweep",
    "external",
    "claim",
    "arms",
)


def load_pipeline(path: Path, overrides: Iterable[str] = ()) -> Pipeline:
    """Read and validate a pipeline file. Overrides are `dotted.key=value`, values in YAML."""
    path = shipped(path)
    try:
        data = yaml.safe_load(path.read_text())
    except IsADirectoryError as error:
        raise ConfigError(
            f"{path} is a folder; give the path of a YAML file, such as pipelines/quickstart.yaml"
        ) from error
    except FileNotFoundError as error:
        raise ConfigError(
            f"no pipeline file {path}; give the path of a YAML file, such as pipelines/quickstart.yaml"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path}: got {type(data).__name__}, expected a mapping with the keys {', '.join(PIPELINE_KEYS)}"
        )
    for override in overrides:
        _override(data, override)
    return parse_pipeline(path.stem, data)


def shipped(path: Path) -> Path:
    """The path; where there is none, what an installed wheel carries under that name
    (pipelines/...).
    """
    carried = Path(__file__).parents[1] / "_pipelines" / Path(*path.parts[1:])
    return (
        carried
        if path.parts[:1] == ("pipelines",) and not path.exists() and carried.exists()
        else path
    )


def _override(data: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator:
        raise ConfigError(
            f"override {override!r}: expected dotted.key=value, such as 'seeds=[0,1]'"
        )
    *parents, last = key.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise ConfigError(f"override {override!r}: {parent!r} is a value, not a section")
    try:
        data[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: {value!r} is not YAML") from error


def parse_pipeline(name: str, data: Mapping[str, Any]) -> Pipeline:
    """A mapping as read from YAML -> a validated pipeline."""
    check_keys(data, PIPELINE_KEYS, f"pipeline {name}")
    for required in ("task", "policy"):
        if required not in data:
            raise ConfigError(
                f"pipeline {name}: no {required!r} section; see pipelines/quickstart.yaml for one"
            )
    if not isinstance(data.get("arms") or {}, Mapping):
        raise ConfigError(
            f"arms: got {data['arms']!r}, expected a mapping from names to what differs, such as {{scalar: {{}}}}"
        )
    arms = data.get("arms") or {"critique" if "critic" in data else "scalar": {}}
    if "base" in arms:
        raise ConfigError(
            "arms: 'base' is the policy before training, which every pipeline evaluates; give the arm another name"
        )
    shared = {key: data[key] for key in RUN_KEYS if key in data}
    resolved = {
        arm: _run(f"arm {arm}", _merge(shared, _section(f"arm {arm}", changes or {})))
        for arm, changes in arms.items()
    }
    resolved = _with_branch_points(resolved)
    control = data.get("control", "scalar" if "scalar" in resolved else next(iter(resolved)))
    if control not in resolved:
        raise ConfigError(f"control: no arm {control!r}; {suggest(str(control), resolved)}")
    seeds = _seeds(data.get("seeds", [0]))
    sweep = _sweep(data["sweep"], seeds, resolved) if data.get("sweep") is not None else None
    external = _external(data.get("external") or {}, resolved)
    return Pipeline(
        name,
        resolved,
        seeds,
        str(data.get("primary", "pass@1/all")),
        control,
        _target(data.get("target")),
        sweep,
        external,
        data.get("claim"),
    )


def _external(value: Any, arms: Iterable[str]) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(
        isinstance(folder, str) and folder for folder in value.values()
    ):
        raise ConfigError(
            f"external: got {value!r}, expected a mapping from names to output folders of plain TRL runs, such as {{grpo: outputs/grpo}}"
        )
    if taken := [name for name in map(str, value) if name in arms]:
        raise ConfigError(
            f"external: {taken[0]!r} is an arm of this pipeline, and a reader could not tell the two apart; give it another name"
        )
    return {str(name): folder for name, folder in value.items()}


def _sweep(value: Any, seeds: tuple[int, ...], arms: Mapping[str, RunConfig]) -> SweepConfig:
    sweep = read_section(SweepConfig, value, "sweep")
    section, _, option = sweep.key.partition(".")
    if section not in ("trl", "method") or not option:
        raise ConfigError(
            f"sweep.key: got {sweep.key!r}, expected an option of the trl: or method: section, such as trl.learning_rate"
        )
    numbers = isinstance(sweep.values, tuple) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in sweep.values
    )
    if not numbers or len(set(sweep.values)) < max(2, len(sweep.values)):
        raise ConfigError(
            f"sweep.values: got {value['values']!r}, expected a list of two different numbers or more (YAML reads 1e-4 as text; write 1.0e-4)"
        )
    if set(_seeds(list(sweep.seeds))) & set(seeds):
        raise ConfigError(
            f"sweep.seeds: got {list(sweep.seeds)}, expected none of the pipeline's own seeds: what is chosen by them cannot be judged on them"
        )
    if not 0 < sweep.budget_share <= 1:
        raise ConfigError(
            f"sweep.budget_share: got {sweep.budget_share}, expected a share of the budget, above 0 and at most 1"
        )
    branching = [arm for arm, config in arms.items() if config.branch_from is not None]
    if branching:
        raise ConfigError(
            f"sweep: arm {branching[0]} branches from another one, which a sweep cannot try; take out sweep: or branch_from"
        )
    return sweep


def _with_branch_points(arms: dict[str, RunConfig]) -> dict[str, RunConfig]:
    """Check each `branch_from`, and have the arm branched from keep the steps that are named."""
    for arm, config in list(arms.items()):
        branch = config.branch_from
        if branch is None:
            continue
        if branch.arm not in arms or branch.arm == arm:
            raise ConfigError(
                f"arm {arm}, branch_from.arm: no other arm {branch.arm!r}; {suggest(str(branch.arm), set(arms) - {arm})}"
            )
        trunk = arms[branch.arm]
        if trunk.branch_from is not None:
            raise ConfigError(
                f"arm {arm}, branch_from.arm: {branch.arm!r} branches itself; branch from the arm it comes from"
            )
        for name, mine, its in _unlike(config, trunk):
            raise ConfigError(
                f"arm {arm}: branches from {branch.arm!r}, whose {name} is {its!r}, not {mine!r}: the data order must be the same"
            )
        if branch.at != "plateau" and (
            not isinstance(branch.at, int) or isinstance(branch.at, bool) or branch.at < 1
        ):
            raise ConfigError(
                f"arm {arm}, branch_from.at: got {branch.at!r}, expected 'plateau' or an optimizer step"
            )
        if branch.at == "plateau" and trunk.plateau is None:
            raise ConfigError(
                f"arm {arm}: branches at the plateau of {branch.arm!r}, which has no plateau: section; add one, such as plateau: {{}}"
            )
        if isinstance(branch.at, int) and branch.at > (trunk.budget.optimizer_steps or branch.at):
            raise ConfigError(
                f"arm {arm}, branch_from.at: got {branch.at}, but {branch.arm!r} ends at step {trunk.budget.optimizer_steps}"
            )
        if isinstance(branch.at, int):
            arms[branch.arm] = replace(
                trunk, keep_steps=tuple(sorted({*trunk.keep_steps, branch.at}))
            )
    return arms


def _unlike(config: RunConfig, trunk: RunConfig) -> list[tuple[str, Any, Any]]:
    """What must be the same in both for the data order to be, and is not: (name, the branch's, the
    trunk's).
    """
    pairs = [("task", config.task, trunk.task), ("policy", config.policy, trunk.policy)]
    pairs += [(f"trl.{key}", config.trl.get(key), trunk.trl.get(key)) for key in DATA_ORDER]
    return [pair for pair in pairs if pair[1] != pair[2]]


def _target(value: Any) -> float | None:
    if value is not None and (
        not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1
    ):
        raise ConfigError(
            f"target: got {value!r}, expected a value of the primary metric, such as 0.5"
        )
    return value


def _seeds(value: Any) -> tuple[int, ...]:
    whole = isinstance(value, list) and all(
        isinstance(seed, int) and not isinstance(seed, bool) for seed in value
    )
    if not whole or not value or len(set(value)) < len(value):
        raise ConfigError(
            f"seeds: got {value!r}, expected a list of different whole numbers, such as [0, 1, 2]"
        )
    return tuple(value)


def _section(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: got {value!r}, expected a mapping")
    check_keys(value, RUN_KEYS, where)
    return dict(value)


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Deep merge, but for `KINDS_OF`."""
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        deep = (
            key not in KINDS_OF
            and isinstance(value, Mapping)
            and isinstance(merged.get(key), Mapping)
        )
        merged[key] = _merge(merged[key], value) if deep else copy.deepcopy(value)
    return merged


def _run(where: str, data: Mapping[str, Any]) -> RunConfig:
    parsed = {key: _parsed(key, value, f"{where}, {key}") for key, value in data.items()}
    config = RunConfig(**parsed)
    for section, example in KINDS_OF.items():
        if "kind" not in getattr(config, section):
            raise ConfigError(
                f"{where}, {section}: no 'kind'; expected one such as {{kind: {example}}}"
            )
    if config.critique_from == "plateau" and config.plateau is None:
        raise ConfigError(
            f"{where}: critique_from plateau needs a plateau: section, such as plateau: {{}}"
        )
    if config.plateau is not None and not config.evaluation.curve_every:
        raise ConfigError(
            f"{where}: a plateau is looked for on the learning curve; set evaluation.curve_every"
        )
    if config.evaluation.best_by and not (
        config.evaluation.best_by.startswith("pass@1/") and config.evaluation.curve_every
    ):
        raise ConfigError(
            f"{where}, evaluation.best_by: got {config.evaluation.best_by!r}, expected a pass@1 of the learning curve, and curve_every above 0"
        )
    warmup = config.trl.get("warmup_steps", 0)
    given = [f.name for f in fields(BudgetConfig) if getattr(config.budget, f.name) is not None]
    if len(given) > 1 or any(getattr(config.budget, name) <= 0 for name in given):
        raise ConfigError(
            f"{where}, budget: got {', '.join(f'{name} {getattr(config.budget, name)}' for name in given)}, expected one of them, above 0"
        )
    if config.budget.usd and not any(
        (
            config.prices.prompt,
            config.prices.completion,
            config.prices.training,
            config.critic.get("completion_price"),
        )
    ):
        raise ConfigError(
            f"{where}: a budget in usd needs prices; give prices: {{completion: ...}}, or the critic's completion_price"
        )
    if config.budget.of and warmup >= 1:
        raise ConfigError(
            f"{where}: with such a budget the schedule runs over it: got trl.warmup_steps {warmup}, expected a share of it, such as 0.05"
        )
    return config


def _parsed(key: str, value: Any, where: str) -> Any:
    if key in ("plateau", "branch_from") and value is None:
        return None
    if key == "critique_from":
        if value not in ("start", "plateau"):
            raise ConfigError(f"{where}: got {value!r}, expected start or plateau")
        return value
    if key == "keep_steps":
        if not isinstance(value, list) or not all(
            isinstance(step, int) and step > 0 for step in value
        ):
            raise ConfigError(
                f"{where}: got {value!r}, expected a list of steps, such as [100, 200]"
            )
        return tuple(value)
    if key == "preset":
        if not isinstance(value, str):
            raise ConfigError(f"{where}: got {value!r}, expected the name of a preset, such as nsr")
        return value
    return read_section(SECTIONS[key], value, where) if key in SECTIONS else _free(value, where)


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The resolved run as plain data for config.yaml."""
    return yaml.safe_load(yaml.safe_dump(_plain(asdict(config))))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def base_config(config: RunConfig) -> dict[str, Any]:
    """What the evaluation of the policy before training depends on."""
    whole = to_dict(config)
    task = {
        key: whole["task"][key]
        for key in ("name", "options", "verifier")
        if key != "verifier" or whole["task"][key]
    }
    length = whole["trl"].get("max_completion_length")
    return {
        "task": task,
        "policy": whole["policy"],
        "evaluation": whole["evaluation"],
        "max_completion_length": length,
    }


def run_defaults() -> dict[str, Any]:
    """What a run has where its file says nothing, as plain data."""
    whole = to_dict(RunConfig(TaskConfig(""), PolicyConfig("")))
    # What has no default a file cannot leave out.
    return {
        **whole,
        "task": {**whole["task"], "name": None},
        "policy": {**whole["policy"], "model": None},
    }


def with_seed(config: RunConfig, seed: int) -> RunConfig:
    """The run with TRL's `seed` set, which orders the prompts and samples the completions."""
    return replace(config, trl={**config.trl, "seed": seed})
