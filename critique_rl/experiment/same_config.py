"""Whether a run folder was started with the settings that a pipeline has now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from critique_rl.config.checks import ConfigError
from critique_rl.config.pipeline_file import run_defaults, to_dict, with_seed
from critique_rl.config.run_folder import SCHEMA, PipelineFolder, RunFolder
from critique_rl.config.schema import Pipeline, RunConfig
from critique_rl.critic.api.endpoint import OPERATIONAL


def check_folders(pipeline: Pipeline, folder: PipelineFolder, but: Sequence[str] = ()) -> None:
    """`check_same_config` of every run, without the sections in `but`."""
    for arm, config in pipeline.arms.items():
        for seed in pipeline.seeds:
            check_same_config(folder.run(arm, seed), config, seed, but)


def check_same_config(
    run: RunFolder, config: RunConfig, seed: int, but: Sequence[str] = ()
) -> None:
    """ConfigError where the folder was started with other settings than these, sections in `but`
    aside.
    """
    if not run.config.exists():
        return
    stored, wanted = yaml.safe_load(run.config.read_text()), to_dict(with_seed(config, seed))
    if stored.get("schema", SCHEMA) != SCHEMA:
        raise ConfigError(
            f"{run.path} has layout {stored['schema']}, this version reads {SCHEMA}; give another --out, or use the version that wrote it"
        )
    stored = _filled(run_defaults(), stored)
    # Which checkpoints are kept changes no result: an arm that branches from a finished run may be
    # added.
    stored, wanted = (
        {**stored, "critic": _lasting(stored["critic"])},
        {**wanted, "critic": _lasting(wanted["critic"])},
    )
    changed = [
        key for key in wanted if key not in ("keep_steps", *but) and stored.get(key) != wanted[key]
    ]
    if changed:
        words = "; ".join(_difference(key, stored.get(key), wanted[key]) for key in changed)
        raise ConfigError(
            f"{run.path} was started with other settings ({words}); remove the folder, or give another --out"
        )


def _lasting(critic: dict) -> dict:
    """A critic's section without what changes no answer: a run that stopped at a cap, or for a
    deadline, is continued with another one.
    """
    kept = {name: value for name, value in critic.items() if name not in OPERATIONAL}
    return {
        name: _lasting(value) if name == "critic" and isinstance(value, dict) else value
        for name, value in kept.items()
    }


def _difference(key: str, was: Any, now: Any) -> str:
    """The options of a section that differ, with both values."""
    if isinstance(was, dict) and isinstance(now, dict):
        return "; ".join(
            _difference(f"{key}.{name}", was.get(name), now.get(name))
            for name in {**was, **now}
            if was.get(name) != now.get(name)
        )
    return f"{key} {was!r}, now {now!r}"


def _filled(defaults: dict, stored: dict) -> dict:
    """What was stored, with the defaults of options that came later."""
    merged = {**defaults, **stored}
    return {
        key: {**defaults[key], **value}
        if isinstance(value, dict) and isinstance(defaults.get(key), dict)
        else value
        for key, value in merged.items()
    }
