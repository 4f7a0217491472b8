"""A resolved run as plain data: for config.yaml, and to compare two runs by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import yaml

from critique_rl.config.schema import PolicyConfig, RunConfig, TaskConfig
from critique_rl.config.split_rule import stored_options

SHARED_SAMPLING = (
    "top_k",
    "min_p",
    "repetition_penalty",
    "generation_kwargs",
    "chat_template_kwargs",
    "cache_implementation",
    "use_vllm",
)
"""Options of TRL that rollouts and evaluations share, beside max_completion_length."""


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The resolved run as config.yaml holds it.

    Returns:
        Key of RunConfig -> mappings, lists, texts and numbers only.
    """
    # Through YAML and back, so that it equals a file that is read again.
    data: dict[str, Any] = yaml.safe_load(yaml.safe_dump(_plain(asdict(config))))
    data["task"]["options"] = stored_options(config.task.name, data["task"]["options"])
    return data


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def base_config(config: RunConfig) -> dict[str, Any]:
    """The settings that the evaluation of the policy before training depends on.

    Returns:
        Sections task (without what only training reads), policy and evaluation,
        max_completion_length, and other settings of rollouts that evaluations share. Equal settings
        mean that an evaluation can be used again.
    """
    data = to_dict(config)
    task = {key: data["task"][key] for key in ("name", "options")}
    # Left out if empty, so that evaluations from before this key existed stay valid.
    if data["task"]["verifier"]:
        task["verifier"] = data["task"]["verifier"]
    options = data["trl"]
    shared = {name: options[name] for name in SHARED_SAMPLING if options.get(name)}
    base = {
        "task": task,
        "policy": data["policy"],
        "evaluation": data["evaluation"],
        "max_completion_length": data["trl"].get("max_completion_length"),
    }
    # Left out if empty, as above.
    if shared:
        return {**base, "sampling": shared}
    return base


def run_defaults() -> dict[str, Any]:
    """The defaults of all sections as plain data; None for keys that have no default."""
    data = to_dict(RunConfig(TaskConfig(""), PolicyConfig("")))
    # A file cannot leave these two out.
    data["task"]["name"] = None
    data["policy"]["model"] = None
    return data


def with_seed(config: RunConfig, seed: int) -> RunConfig:
    """The run with TRL's `seed` set, which orders the prompts and samples the completions."""
    return replace(config, trl={**config.trl, "seed": seed})
