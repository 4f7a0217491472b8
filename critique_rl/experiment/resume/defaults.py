"""Options that one of two configurations writes out, at the value that the other has anyway."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from critique_rl.config.checks import ConfigError
from critique_rl.config.run_folder import RunFolder
from critique_rl.config.schema import RunConfig
from critique_rl.critic.build import option_defaults
from critique_rl.experiment.build import trainer_arguments
from critique_rl.tasks.load import load_task

TEMPLATES = {"method.refine_template": "refine", "method.distill_template": "teacher"}
"""Option whose default is a template of the task -> that template."""
KNOWN: dict[str, dict[str, Any]] = {}
"""Settings -> their values in effect. New arguments of TRL reset the state of a trainer that is
built, so `train` asks once before it builds one.
"""
UNUSED = RunFolder(Path("unused"))


def same_in_effect(keys: Iterable[str], stored: Mapping[str, Any], config: RunConfig) -> set[str]:
    """Those of some options whose values are the same in effect.

    Args:
        keys: Dotted keys of options that differ as they are written.
        stored: The settings of config.yaml.
        config: The run as its pipeline has it now.
    """
    prompts = _prompts(config)
    now = _effective(config, prompts)
    before = _effective(_as_stored(config, stored), prompts)
    known = [key for key in keys if key in before and key in now]
    return {key for key in known if before[key] == now[key]}


def _as_stored(config: RunConfig, stored: Mapping[str, Any]) -> RunConfig:
    sections = {name: stored[name] for name in ("preset", "trl", "method", "critic")}
    return replace(config, **sections)


def _prompts(config: RunConfig) -> str | None:
    """Where the task's templates lie; None where it does not load, which others tell."""
    try:
        return load_task(replace(config.task, size=1), 0).prompts
    except (ValueError, OSError, ImportError, TypeError):
        return None


def _effective(config: RunConfig, prompts: str | None) -> dict[str, Any]:
    """Dotted key -> value in effect; {} where the settings cannot be used."""
    sections = (config.preset, config.trl, config.method, config.critic, config.budget)
    name = repr((sections, prompts))
    if name not in KNOWN:
        KNOWN[name] = _read_effective(config, prompts)
    return KNOWN[name]


def _read_effective(config: RunConfig, prompts: str | None) -> dict[str, Any]:
    try:
        arguments = vars(trainer_arguments(config, UNUSED))
    except ConfigError:
        return {}
    effective: dict[str, Any] = {}
    for name, value in arguments.items():
        effective[f"trl.{name}"] = value
        effective[f"method.{name}"] = value
    for key, template in TEMPLATES.items():
        effective.pop(key)
        if prompts is not None:
            option = key.removeprefix("method.")
            effective[key] = config.method.get(option, f"{prompts}{template}")
    if prompts is not None:
        effective |= _critic_options("critic", config.critic, prompts)
    return effective


def _critic_options(place: str, spec: Mapping[str, Any], prompts: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in {**option_defaults(spec, prompts), **spec}.items():
        if isinstance(value, Mapping) and name == "critic":
            options |= _critic_options(f"{place}.{name}", value, prompts)
        else:
            options[f"{place}.{name}"] = value
    return options
