"""A pipeline file -> one validated Pipeline. Unknown keys fail with "did you mean".

Here are the keys of the experiment (seeds, primary, control, target, sweep, external); `arms` reads
the sections of runs. Nothing heavy is imported, so that a mistake is named at once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from critique_rl.config.arms import RUN_KEYS, parse_arms
from critique_rl.config.checks import ConfigError, check_keys, read_section, suggest
from critique_rl.config.names import check_name, check_names, name_key, shown
from critique_rl.config.ranges import check_seeds, check_values
from critique_rl.config.schema import Pipeline, RunConfig, SweepConfig
from critique_rl.config.secrets import refuse_secrets, without_secrets
from critique_rl.config.yaml_text import MOST_CHARACTERS, read_yaml

PIPELINE_KEYS = (
    *RUN_KEYS,
    "seeds",
    "primary",
    "control",
    "target",
    "delta",
    "sweep",
    "external",
    "claim",
    "arms",
)


def load_pipeline(path: Path, overrides: Iterable[str] = ()) -> Pipeline:
    """Read and validate a pipeline file.

    Args:
        path: The file, or the name of a shipped one (`pipeline_path`).
        overrides: `dotted.key=value`, with values in YAML.

    Raises:
        ConfigError: For a file that cannot be read, and for a mistake in it.
    """
    text = _read_text(path)
    # The name has no wrong signs by then that would confuse what is printed about the file.
    name = check_name(path.stem, f"the pipeline's name, that of its file {shown(path.name)}", False)
    data = read_yaml(text, str(path))
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path}: got {type(data).__name__}, "
            f"expected a mapping with the keys {', '.join(PIPELINE_KEYS)}"
        )
    given: list[str] = []
    for override in overrides:
        key = _override(data, override)
        for before in given:
            if before == key or before.startswith(f"{key}."):
                raise ConfigError(
                    f"overrides: {shown(key)} is given after {shown(before)}, which would be "
                    "lost; give one of them"
                )
        given.append(key)
    return parse_pipeline(name, data)


def _read_text(path: Path) -> str:
    """The text of a pipeline file. Raises ConfigError for what is no readable file of text."""
    advice = "give the path of a YAML file, such as pipelines/quickstart.yaml"
    try:
        path = pipeline_path(path)
        if path.is_dir():
            raise ConfigError(f"{path} is a folder; {advice}")
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path} is no file; {advice}")
        with path.open("rb") as file:
            content = file.read(4 * MOST_CHARACTERS + 1)
        return content.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"no pipeline file {path}; {advice}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no UTF-8 ({error.reason}); save it as UTF-8") from error
    except ConfigError:
        raise
    # A path with a NUL is a ValueError.
    except (OSError, ValueError) as error:
        raise ConfigError(f"{shown(str(path))} cannot be read ({error}); {advice}") from error


def pipeline_path(path: Path) -> Path:
    """Find a pipeline file, or a folder of them.

    Returns:
        `path` if it exists, else the copy of that pipeline inside the installed package. Without a
        copy `path` again.
    """
    if path.exists() or path.parts[:1] != ("pipelines",):
        return path
    # A wheel carries the repository's pipelines/ as critique_rl/_pipelines (pyproject.toml).
    packaged = Path(__file__).parents[1] / "_pipelines" / Path(*path.parts[1:])
    if packaged.exists():
        return packaged
    return path


def _override(data: dict[str, Any], override: str) -> str:
    """Set one dotted key of the file's data, and return it.

    Raises:
        ConfigError: An override of another form.
    """
    key, separator, text = override.partition("=")
    if not separator:
        raise ConfigError(
            f"override {without_secrets(override)!r}: "
            "expected dotted.key=value, such as 'seeds=[0,1]'"
        )
    *parents, last = key.split(".")
    section: Any = data
    for parent in parents:
        # `arms:` with nothing below it is null in YAML.
        if section.get(parent) is None:
            section[parent] = {}
        # An alias gives two sections one mapping, and only this one is changed.
        section[parent] = copy.copy(section[parent])
        section = section[parent]
        if not isinstance(section, dict):
            raise ConfigError(f"override of {key!r}: {parent!r} is a value, not a section")
    # Not with its value, which may be a key that was pasted there.
    section[last] = read_yaml(text, f"override of {shown(key)}")
    return key


def parse_pipeline(name: str, data: Mapping[str, Any]) -> Pipeline:
    """A mapping as read from YAML -> a validated pipeline.

    Args:
        name: Name of the experiment, and of its folder of results.
        data: Keys and sections as in a pipeline file.

    Raises:
        ConfigError: At the first mistake.
    """
    check_name(name, "the pipeline's name", is_folder=False)
    try:
        refuse_secrets(data)
    except ValueError as error:
        raise ConfigError(f"pipeline {name}, {error}") from None
    check_keys(data, PIPELINE_KEYS, f"pipeline {name}")
    check_values(data)
    for required in ("task", "policy"):
        if required not in data:
            raise ConfigError(
                f"pipeline {name}: no {required!r} section; see pipelines/quickstart.yaml for one"
            )
    arms = parse_arms(data)
    default_control = "scalar" if "scalar" in arms else next(iter(arms))
    control = data.get("control", default_control)
    if not isinstance(control, str) or control not in arms:
        raise ConfigError(f"control: no arm {control!r}; {suggest(str(control), arms)}")
    seeds = _parse_seeds(data.get("seeds", [0]))
    sweep = None
    if data.get("sweep") is not None:
        sweep = _parse_sweep(data["sweep"], seeds, arms)
    return Pipeline(
        name=name,
        arms=arms,
        seeds=seeds,
        primary=_parse_primary(data.get("primary", "pass@1/all")),
        control=control,
        target=_parse_target(data.get("target")),
        delta=_parse_delta(data.get("delta")),
        sweep=sweep,
        external=_parse_external(data.get("external"), arms),
        claim=data.get("claim"),
    )


def _is_number(value: Any) -> bool:
    # bool is a subclass of int, and YAML reads `yes` and `on` as True.
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parse_primary(value: Any) -> str:
    """The name of a metric. Raises ConfigError for anything but a text."""
    if not isinstance(value, str):
        raise ConfigError(f"primary: got {value!r}, expected a metric, such as pass@1/all")
    return value


def _parse_seeds(value: Any) -> tuple[int, ...]:
    """A list of different integers as a tuple. Raises ConfigError for anything else."""
    if not isinstance(value, list):
        raise ConfigError(
            f"seeds: got {value!r}, expected a list of different whole numbers, such as [0, 1, 2]"
        )
    check_seeds(value, "seeds")
    return tuple(value)


def _parse_target(value: Any) -> float | None:
    """A value of the primary metric, or None. Raises ConfigError outside of 0 to 1."""
    if value is None:
        return None
    if not _is_number(value) or not 0 < value <= 1:
        raise ConfigError(
            f"target: got {value!r}, expected a value of the primary metric, such as 0.5"
        )
    target: float = value
    return target


def _parse_delta(value: Any) -> float | None:
    """A difference of the primary metric, or None. Raises ConfigError outside of 0 to 1."""
    if value is None:
        return None
    if not _is_number(value) or not 0 < value <= 1:
        raise ConfigError(
            f"delta: got {value!r}, expected a difference of the primary metric, such as 0.05"
        )
    delta: float = value
    return delta


def _parse_external(value: Any, arms: Iterable[str]) -> dict[str, str]:
    """Names and output folders of plain TRL runs. Raises ConfigError for the name of an arm."""
    if value is None:
        return {}
    is_folders = isinstance(value, Mapping) and all(
        isinstance(folder, str) and folder for folder in value.values()
    )
    if not is_folders:
        raise ConfigError(
            f"external: got {value!r}, expected a mapping from names to output folders "
            "of plain TRL runs, such as {grpo: outputs/grpo}"
        )
    check_names(value, "external")
    folders = dict(value)
    keys = {name_key(arm) for arm in arms}
    for name in folders:
        if name_key(name) in keys:
            raise ConfigError(
                f"external: {name!r} is an arm of this pipeline, "
                "and a reader could not tell the two apart; give it another name"
            )
    return folders


def _parse_sweep(value: Any, seeds: tuple[int, ...], arms: Mapping[str, RunConfig]) -> SweepConfig:
    """Raises ConfigError for a sweep that cannot be run, or whose trials would be judged twice."""
    sweep = read_section(SweepConfig, value, "sweep")
    section, _, option = sweep.key.partition(".")
    if section not in ("trl", "method") or not option:
        raise ConfigError(
            f"sweep.key: got {sweep.key!r}, "
            "expected an option of the trl: or method: section, such as trl.learning_rate"
        )
    is_numbers = isinstance(sweep.values, tuple) and all(_is_number(item) for item in sweep.values)
    # The folder of a trial has six digits of its value.
    distinct = {f"{item:g}" for item in sweep.values} if is_numbers else set()
    if not is_numbers or len(distinct) < max(2, len(sweep.values)):
        raise ConfigError(
            f"sweep.values: got {value['values']!r}, "
            "expected a list of two different numbers or more, different in six digits, such as "
            "[1e-4, 3e-4] without quotes"
        )
    check_seeds(sweep.seeds, "sweep.seeds")
    shared_seeds = set(sweep.seeds) & set(seeds)
    if shared_seeds:
        raise ConfigError(
            f"sweep.seeds: got {list(sweep.seeds)}, expected none of the pipeline's own seeds: "
            "what is chosen by them cannot be judged on them"
        )
    if sweep.extend < 0 or (sweep.extend and min(sweep.values) <= 0):
        raise ConfigError(
            f"sweep.extend: got {sweep.extend}, expected 0 or more, and values above 0: the list "
            "grows by the ratio of its last two values"
        )
    if not 0 < sweep.budget_share <= 1:
        raise ConfigError(
            f"sweep.budget_share: got {sweep.budget_share}, "
            "expected a share of the budget, above 0 and at most 1"
        )
    for arm, config in arms.items():
        if config.branch_from is not None:
            raise ConfigError(
                f"sweep: arm {arm} branches from another one, which a sweep cannot try; "
                "take out sweep: or branch_from"
            )
    return sweep
