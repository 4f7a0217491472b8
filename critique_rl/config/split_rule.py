"""Which rule holds questions out of the user's data, and which rule a run folder was split by.

In the files of a run folder, `task.options` without `split_rule` means rule 1: earlier versions had
no other, and wrote no key. In a pipeline file it means the rule of the folder, else the newest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from critique_rl.config.durable_files import read_yaml
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import Pipeline, RunConfig

SPLIT_RULE = 2
"""The newest rule."""
KEY = "split_rule"
CONFIGS = ("*/config.yaml", "*/*/config.yaml", "sweep/*/*/config.yaml")
"""Where a pipeline's folder keeps the settings of its runs."""


def stored_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """`task.options` as the files of a run folder hold them.

    Args:
        name: The task.
        options: As the pipeline has them.
    """
    stored = dict(options)
    if name != "data":
        return stored
    rule = stored.pop(KEY, SPLIT_RULE)
    if rule != 1:
        stored[KEY] = rule
    return stored


def with_stored_split(pipeline: Pipeline, folder: PipelineFolder) -> Pipeline:
    """The pipeline with the rule that its folder was split by, where the file names none."""
    rule = _rule_of_folder(folder)
    if rule is None:
        return pipeline
    arms = {arm: _with_rule(config, rule) for arm, config in pipeline.arms.items()}
    return replace(pipeline, arms=arms)


def _with_rule(config: RunConfig, rule: Any) -> RunConfig:
    if config.task.name != "data":
        return config
    options = {KEY: rule, **config.task.options}
    return replace(config, task=replace(config.task, options=options))


def _rule_of_folder(folder: PipelineFolder) -> Any:
    """The rule of the first run of a task on the user's data; None where there is no such run."""
    for pattern in CONFIGS:
        for path in sorted(folder.path.glob(pattern)):
            task = _stored_task(path)
            if task.get("name") == "data":
                options = task.get("options")
                return options.get(KEY, 1) if isinstance(options, dict) else 1
    return None


def _stored_task(path: Path) -> dict[str, Any]:
    """The section `task` of a config.yaml; {} for a file that another check will refuse."""
    try:
        stored = read_yaml(path)
        return dict(stored["task"])
    # ConfigError of `read_yaml` is a ValueError.
    except (KeyError, TypeError, ValueError):
        return {}
