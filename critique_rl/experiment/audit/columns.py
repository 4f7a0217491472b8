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
from collections.abc import Iterable, Mapping
from typing import Any

from critique_rl.config.checks import ConfigError

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
}
"""What an audit reads -> names of columns that hold it, the first that is there. A dot leads into
an object.
"""
NO_REWARD = {"advantage", "advantages", "step", "seed", "group", "index", "turn", "attempt"}
"""Numbers of a TRL table that are no rewards."""


class Columns:
    """The columns of one file, chosen by the rows that were met so far."""

    def __init__(self, named: Mapping[str, str], place: str):
        """Begin without rows.

        Args:
            named: key of `NAMES` -> the log's column, which comes before the usual names; "": the
                log has none.
            place: the file, for errors.
        """
        self.named = named
        self.place = place
        self.missing: list[str] = []
        """Columns that `named` names and that no row had."""
        self._doubt = ""
        self._is_guessed = False
        """Whether the reward is not known by its name."""
        self._paths: dict[str, tuple[str, ...]] = {}
        self._seen: Row = {}

    def learn(self, rows: Iterable[Row]) -> None:
        """Choose the columns anew, after more rows."""
        for row in rows:
            _merge(self._seen, row)
        self._paths = {}
        self.missing = []
        for name, usual in NAMES.items():
            candidates = usual
            if name in self.named:
                candidates = (self.named[name],)
            self._choose(name, candidates)
        self._doubt = ""
        self._is_guessed = False
        if "reward" not in self._paths and "right" not in self._paths:
            self._find_reward()

    def knows(self, row: Row) -> bool:
        """Whether a row has no column that is new."""
        return row.keys() <= self._seen.keys()

    def _choose(self, name: str, candidates: Iterable[str]) -> None:
        for candidate in candidates:
            path = tuple(candidate.split("."))
            if candidate and _reach(self._seen, path) is not _ABSENT:
                self._paths[name] = path
                return
        column = self.named.get(name)
        if column:
            self.missing.append(column)

    def _find_reward(self) -> None:
        """Take the only number that is nothing else: TRL names rewards after their functions."""
        taken = {path[0] for path in self._paths.values()}
        numbers = []
        for column, value in self._seen.items():
            if column not in taken | NO_REWARD and number_of(value) is not None:
                numbers.append(column)
        if len(numbers) > 1:
            listed = ", ".join(numbers)
            self._doubt = (
                f"{self.place}: got several columns that may be the reward ({listed}), expected "
                "one: name it in a mapping file, columns: {reward: NAME}"
            )
        elif numbers:
            self._paths["reward"] = (numbers[0],)
        self._is_guessed = True

    @property
    def holds_answers(self) -> bool:
        """Whether a file with these columns is a log of judged answers.

        Raises:
            ConfigError: it is one of answers, and the reward may be one of several columns.
        """
        has_question = "prompt" in self._paths or "problem" in self._paths
        # A data set has questions and numbers too. A slim log without texts has ids and rewards by
        # their usual names, or names its columns.
        has_completion = "completion" in self._paths or bool(self.named)
        if "problem" in self._paths and not self._is_guessed:
            has_completion = True
        if not has_question or not has_completion or self.missing:
            return False
        if self._doubt:
            raise ConfigError(self._doubt)
        return "reward" in self._paths or "right" in self._paths

    @property
    def used(self) -> dict[str, str]:
        """Key of `NAMES` -> the column that is read."""
        used = {}
        for name, path in self._paths.items():
            used[name] = ".".join(path)
        return used

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


def _merge(seen: Row, row: Row) -> None:
    """Add a row's columns, and values where none was known."""
    for column, value in row.items():
        known = seen.get(column)
        if isinstance(known, dict) and isinstance(value, dict):
            seen[column] = known | value
        elif known is None or known != known:
            # TRL writes a reward of None as NaN, which is unlike itself.
            seen[column] = value


def number_of(value: Any) -> float | None:
    """A finite number, also one that a CSV's cell spells; None for all else."""
    if isinstance(value, bool) or value is None:
        return None
    if not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and "_" in value:
        # Python reads 1_12 as 112.
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
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
