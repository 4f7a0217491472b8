"""Whether a run folder was started with the settings that a pipeline has now.

A result is compared under the name of its folder, so a folder with other settings is refused. Some
options change no result, and may differ: kept checkpoints, and a critic's caps and deadlines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from critique_rl.config.checks import ConfigError
from critique_rl.config.resolved_run import run_defaults, to_dict, with_seed
from critique_rl.config.run_folder import SCHEMA, PipelineFolder, RunFolder
from critique_rl.config.schema import Pipeline, RunConfig
from critique_rl.critic.api.endpoint import OPERATIONAL


def check_folders(
    pipeline: Pipeline, folder: PipelineFolder, ignored_sections: Sequence[str] = ()
) -> None:
    """Check the folder of every arm and seed by `check_same_config`.

    Raises:
        ConfigError: the first run folder that was started with other settings.
    """
    for arm, config in pipeline.arms.items():
        for seed in pipeline.seeds:
            check_same_config(folder.run(arm, seed), config, seed, ignored_sections)


def check_same_config(
    run: RunFolder, config: RunConfig, seed: int, ignored_sections: Sequence[str] = ()
) -> None:
    """Refuse a run folder that was started with other settings than `config`.

    Args:
        run: A folder without config.yaml was never started, and passes.
        config: The arm as the pipeline has it now.
        seed: The run's seed.
        ignored_sections: Sections that may differ, such as "evaluation".

    Raises:
        ConfigError: The settings differ, or another version wrote the folder.
    """
    if not run.config.exists():
        return
    stored = yaml.safe_load(run.config.read_text())
    # A folder older than the key `schema` has the first layout.
    if stored.get("schema", SCHEMA) != SCHEMA:
        raise ConfigError(
            f"{run.path} has layout {stored['schema']}, this version reads {SCHEMA}; "
            "give another --out, or use the version that wrote it"
        )
    stored = fill_defaults(run_defaults(), stored)
    wanted = to_dict(with_seed(config, seed))
    for settings in (stored, wanted):
        settings["critic"] = _answer_options(settings["critic"])
    # Which checkpoints are kept changes no result: an arm that branches from a finished run may be
    # added.
    ignored = {"keep_steps", *ignored_sections}
    changed = [
        key for key, value in wanted.items() if key not in ignored and stored.get(key) != value
    ]
    if changed:
        differences = [_difference(key, stored.get(key), wanted[key]) for key in changed]
        words = "; ".join(differences)
        raise ConfigError(
            f"{run.path} was started with other settings ({words}); "
            "remove the folder, or give another --out"
        )


def _answer_options(critic: dict[str, Any]) -> dict[str, Any]:
    """The options of a critic that can change its answers.

    A run that stopped at a cap, or for a deadline, is continued with another one.
    """
    options = {name: value for name, value in critic.items() if name not in OPERATIONAL}
    # `noisy` holds the section of another critic.
    if isinstance(options.get("critic"), dict):
        options["critic"] = _answer_options(options["critic"])
    return options


def _difference(key: str, before: Any, now: Any) -> str:
    """Name each option that differs in a section, with both values."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return f"{key} {before!r}, now {now!r}"
    differences = [
        _difference(f"{key}.{name}", before.get(name), now.get(name))
        for name in before | now
        if before.get(name) != now.get(name)
    ]
    return "; ".join(differences)


def fill_defaults(defaults: dict[str, Any], stored: dict[str, Any]) -> dict[str, Any]:
    """Stored settings, with the defaults of options that a later version added."""
    filled = dict(defaults)
    for key, value in stored.items():
        default = defaults.get(key)
        is_section = isinstance(value, dict) and isinstance(default, dict)
        filled[key] = default | value if is_section else value
    return filled
