"""Which column of a log holds what, by the names that trainers use or by a mapping file.

| maker       | prompt   | completion | reward       | right   | step                |
|-------------|----------|------------|--------------|---------|---------------------|
| TRL         | prompt   | completion | a function's | verdict | step                |
| verl        | input    | output     | score        | acc     | step, file's name   |
| prime-rl    | prompt   | completion | reward       |         | folder's name       |
| async-sdpo  | task_id  | text       | judge_score  |         | policy_version      |
| critique_rl | question | text       | reward       | outcome | step                |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from critique_rl.config.checks import ConfigError, suggest
from critique_rl.config.durable_files import read_yaml

Row = dict[str, Any]
"""One row of a log: column -> value."""

NAMES: dict[str, tuple[str, ...]] = {
    "problem": ("problem_id", "question_id", "example_id", "task_id", "prompt_id", "problem"),
    "prompt": ("prompt", "input", "question", "query", "prompt_text"),
    "completion": ("completion", "output", "response", "text", "completion_text", "generation"),
    "reward": ("reward", "score", "total_reward", "judge_score", "reward_total"),
    "right": ("verdict", "outcome", "right", "correct", "is_correct", "acc", "success", "passed"),
    "answer": ("gts", "answer", "ground_truth", "gold", "target"),
    "family": ("family", "data_source", "domain", "task", "env_name", "env_id", "subject"),
    "step": ("step", "global_step", "training_step", "launched_at_step", "policy_version"),
    "split": ("split", "mode", "validate", "is_eval"),
    "tokens": (
        "completion_tokens",
        "num_completion_tokens",
        "output_tokens",
        "response_length",
        "completion_length",
        "token_usage.completion_tokens",
        "token_usage.output_tokens",
        "usage.completion_tokens",
        "metrics.completion_tokens",
    ),
    "truncated": ("is_truncated", "truncated", "overlong"),
    "finish_reason": ("finish_reason", "stop_reason"),
    "critique": ("critique", "feedback", "hint"),
    "role": ("role",),
    "sample": ("sample_index", "rollout_index", "rollout_n", "sample"),
}
"""What an audit reads -> names of columns that hold it, the first that is there. A dot leads into
an object.
"""
NO_REWARD = {"advantage", "advantages", "step", "seed", "group", "index", "turn", "attempt"}
"""Numbers of a TRL table that are no rewards."""


@dataclass(frozen=True)
class LogMapping:
    """What a mapping file says."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Key of `NAMES` -> the log's column."""
    right: float | None = None
    """The least reward of a right answer; None: the greater of two rewards."""
    reported: Mapping[str, int] = field(default_factory=dict)
    """Arm -> the step whose evaluation its makers report."""
    tried: Mapping[str, int] = field(default_factory=dict)
    """Arm -> settings that its makers tried, such as learning rates."""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Arm -> settings that its logs do not hold."""


def read_mapping(path: Path) -> LogMapping:
    """Read a mapping file.

    Raises:
        ConfigError: a key, or a name of a column, is unknown; a value is of another kind.
    """
    raw = read_yaml(path, "put it right")
    known = {"columns", "right", "reported", "tried", "settings"}
    for key in raw:
        if key not in known:
            raise ConfigError(
                f"{path}: got the key {key!r}, expected {', '.join(sorted(known))}"
                f"{suggest(key, known)}"
            )
    for key in ("columns", "reported", "tried", "settings"):
        if not isinstance(raw.get(key) or {}, Mapping):
            raise ConfigError(f"{path}: {key}: got {raw[key]!r}, expected name: value pairs")
    columns = raw.get("columns") or {}
    for name, column in columns.items():
        if name not in NAMES:
            raise ConfigError(
                f"{path}: columns: got {name!r}, expected {', '.join(NAMES)}{suggest(name, NAMES)}"
            )
        if not isinstance(column, str):
            raise ConfigError(f"{path}: columns.{name}: got {column!r}, expected a column's name")
    right = raw.get("right")
    is_number = isinstance(right, int | float) and not isinstance(right, bool)
    if right is not None and not is_number:
        raise ConfigError(f"{path}: right: got {right!r}, expected the least reward of a right one")
    return LogMapping(
        columns=columns,
        right=right,
        reported=_whole_numbers(path, "reported", raw.get("reported") or {}),
        tried=_whole_numbers(path, "tried", raw.get("tried") or {}),
        settings=raw.get("settings") or {},
    )


def _whole_numbers(path: Path, key: str, values: Mapping[str, Any]) -> dict[str, int]:
    """The values, refused if one is no whole number.

    Raises:
        ConfigError: as told.
    """
    for arm, value in values.items():
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not is_whole:
            raise ConfigError(f"{path}: {key}.{arm}: got {value!r}, expected a whole number")
    return dict(values)


class Columns:
    """The columns of one file, chosen by its first row."""

    def __init__(self, first: Row, mapping: LogMapping, place: str):
        """Choose the columns.

        Args:
            first: the file's first row.
            mapping: comes before the usual names.
            place: the file, for errors.

        Raises:
            ConfigError: a column that the mapping names is not there, or the reward may be one of
                several.
        """
        self._paths: dict[str, tuple[str, ...]] = {}
        for name, usual in NAMES.items():
            candidates = usual
            if name in mapping.columns:
                candidates = (mapping.columns[name],)
            for candidate in candidates:
                path = tuple(candidate.split("."))
                if _reach(first, path) is not _ABSENT:
                    self._paths[name] = path
                    break
            else:
                if name in mapping.columns:
                    raise ConfigError(
                        f"{place}: got no column {mapping.columns[name]!r}, which the mapping "
                        f"names as {name}; expected one of {', '.join(map(str, first))}"
                    )
        if "reward" not in self._paths and "right" not in self._paths:
            self._find_reward(first, place)

    def _find_reward(self, first: Row, place: str) -> None:
        """Take the only number that is nothing else: TRL names rewards after their functions.

        Raises:
            ConfigError: there are several.
        """
        taken = {path[0] for path in self._paths.values()}
        numbers = []
        for column, value in first.items():
            if column not in taken | NO_REWARD and number_of(value) is not None:
                numbers.append(column)
        if len(numbers) > 1:
            raise ConfigError(
                f"{place}: got several columns that may be the reward ({', '.join(numbers)}), "
                "expected one: name it in a mapping file, columns: {reward: NAME}"
            )
        if numbers:
            self._paths["reward"] = (numbers[0],)

    @property
    def holds_answers(self) -> bool:
        """Whether a file with these columns is a log of judged answers."""
        has_question = "prompt" in self._paths or "problem" in self._paths
        has_verdict = "reward" in self._paths or "right" in self._paths
        return has_question and has_verdict

    def has(self, name: str) -> bool:
        """Whether the file has a column of this key of `NAMES`."""
        return name in self._paths

    def get(self, row: Row, name: str) -> Any:
        """A row's value of this key of `NAMES`; None where it has none."""
        path = self._paths.get(name)
        if path is None:
            return None
        if len(path) == 1:
            return row.get(path[0])
        value = _reach(row, path)
        if value is _ABSENT:
            return None
        return value


def number_of(value: Any) -> float | None:
    """A finite number, also one that a CSV's cell spells; None for all else."""
    if isinstance(value, bool) or value is None:
        return None
    if not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    return number


_ABSENT = object()


def _reach(row: Any, path: tuple[str, ...]) -> Any:
    if len(path) > 1 and ".".join(path) in row:
        return row[".".join(path)]
    value = row
    for part in path:
        if not isinstance(value, dict) or part not in value:
            return _ABSENT
        value = value[part]
    return value
