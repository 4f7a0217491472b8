"""The logged answers of one run, as arrays: a million of them take some fifty megabytes.

Texts are not kept, but for problems: of an answer its digest stays, to find copies by.

Axis N: answers of one part of a run, training or evaluation, in the order of the log.
"""

from __future__ import annotations

import json
import math
import re
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from critique_rl.config.checks import ConfigError
from critique_rl.experiment.audit.columns import Columns, LogMapping, Row, number_of
from critique_rl.experiment.audit.files import is_log, read_rows
from critique_rl.experiment.audit.leaks import LeakCount
from critique_rl.tasks.messages import question_of, text_of

UNKNOWN = -1
RIGHT_WORDS = {"right", "correct", "true", "pass", "passed", "yes"}
WRONG_WORDS = {"wrong", "incorrect", "false", "fail", "failed", "no", "unreadable", "abstained"}
UNJUDGED_WORDS = {"unscored", "none", ""}
EVALUATION = re.compile(
    r"(?:^|[^a-z])(?:evals?|evaluation|val|valid|validation|test|heldout|held_out)(?:[^a-z]|$)"
)
"""Part of a file's name, or of a value of `split`, that names held-out answers."""
STEP_IN_NAME = re.compile(r"(?:step|completions|global_step)[_-]?0*(\d+)|^0*(\d+)$")
TRL_TABLE = re.compile(r"completions_0*(\d+)\.parquet")
SETTINGS_FILES = ("config.yaml", "config.yml", "config.json", "args.json")
FINISHED_EARLY = {"length", "max_tokens", "max_length"}


@dataclass(frozen=True)
class Answers:
    """Answers of one part of a run."""

    problem_N: np.ndarray
    """Code of the problem, a place in `RunLog.problems`."""
    step_N: np.ndarray
    """-1 where the log has none."""
    reward_N: np.ndarray
    """NaN where the log has none."""
    right_N: np.ndarray
    """1 right, 0 wrong, -1 unknown."""
    tokens_N: np.ndarray
    """Tokens of the completion; -1 unknown."""
    truncated_N: np.ndarray
    """1 cut off, 0 not, -1 unknown."""
    text_N: np.ndarray
    """Digest of the completion."""
    file_N: np.ndarray
    """A place in `RunLog.files`."""
    line_N: np.ndarray
    """Line of that file, or row of its table, from 1."""

    def __len__(self) -> int:
        return len(self.problem_N)

    def take(self, chosen_N: np.ndarray) -> Answers:
        """Some of the answers, by a mask (N,) or by places (N,)."""
        arrays = {}
        for name in self.__dataclass_fields__:
            column_N = getattr(self, name)
            arrays[name] = column_N[chosen_N]
        return Answers(**arrays)


@dataclass(frozen=True)
class Problem:
    """One question, as a run's log has it."""

    id: str
    """Its id, or its prompt where the log has no ids."""
    family: str
    prompt: int | None
    """Digest of its prompt; None where the log has no prompts."""
    other_prompts: int = 0
    """Other prompts that the run logged under this id."""


@dataclass(frozen=True)
class RunLog:
    """One run's log."""

    arm: str
    seed: int
    files: list[str]
    problems: list[Problem]
    train: Answers
    evaluation: Answers
    has_ids: bool
    """Whether problems have ids of their own."""
    leaks: LeakCount
    settings: Mapping[str, Any]
    """Settings that lie beside the log, flat; {} where there are none."""
    left_out: int
    """Refinements and expert traces, which are no answers to the plain question."""
    unread: tuple[str, ...]
    """Files of the folder that hold no judged answers."""

    @property
    def name(self) -> str:
        return f"{self.arm}/seed{self.seed}"

    def place(self, answers: Answers, i: int) -> str:
        """Where an answer stands: file and line."""
        file = self.files[answers.file_N[i]]
        line = answers.line_N[i]
        return f"{file}:{line}"


class _Part:
    """Answers that are read one by one."""

    def __init__(self) -> None:
        self.columns: dict[str, array[Any]] = {
            "problem_N": array("i"),
            "step_N": array("q"),
            "reward_N": array("d"),
            "right_N": array("b"),
            "tokens_N": array("i"),
            "truncated_N": array("b"),
            "text_N": array("q"),
            "file_N": array("i"),
            "line_N": array("i"),
        }
        # Looked up once: a log has a million rows.
        self._appends = [column.append for column in self.columns.values()]

    def add(self, *values: float) -> None:
        """One answer: a value per column, in their order."""
        for append, value in zip(self._appends, values, strict=True):
            append(value)

    def finish(self) -> Answers:
        """The answers as arrays."""
        arrays = {}
        for name, column in self.columns.items():
            arrays[name] = np.array(column)
        return Answers(**arrays)


class LogReader:
    """Reads one run's files."""

    def __init__(self, arm: str, seed: int, mapping: LogMapping):
        self.arm = arm
        self.seed = seed
        self.mapping = mapping
        self.files: list[str] = []
        self.unread: list[str] = []
        self.train = _Part()
        self.evaluation = _Part()
        self.leaks = LeakCount()
        self.left_out = 0
        self.has_ids = False
        self._codes: dict[str, int] = {}
        self._evaluated: set[int] = set()
        self._last_prompt: Any = None
        self._last_question = ""
        self._problems: list[Problem] = []

    def read(self, path: Path) -> RunLog:
        """Read a file, or all logs of answers in a folder.

        Raises:
            ConfigError: nothing is there, no file holds judged answers, or one is damaged.
        """
        self._evaluated = evaluated_steps(path)
        for file in log_files(path):
            self._read_file(file, path)
        if not self.files:
            listed = ", ".join(self.unread[:5]) or "no file of these kinds"
            raise ConfigError(
                f"{path}: got {listed}, expected a log with a question and a reward (or a verdict) "
                "per answer; name its columns in a mapping file (--mapping)"
            )
        return RunLog(
            arm=self.arm,
            seed=self.seed,
            files=self.files,
            problems=self._problems,
            train=self.train.finish(),
            evaluation=self.evaluation.finish(),
            has_ids=self.has_ids,
            leaks=self.leaks,
            settings=read_settings(path) | dict(self.mapping.settings.get(self.arm, {})),
            left_out=self.left_out,
            unread=tuple(self.unread),
        )

    def _read_file(self, file: Path, root: Path) -> None:
        shown = file.name
        if root.is_dir():
            shown = str(file.relative_to(root))
        columns: Columns | None = None
        for line, row in read_rows(file):
            if columns is None:
                columns = Columns(row, self.mapping, shown)
                if not columns.holds_answers:
                    break
                self.files.append(shown)
            self._add(row, columns, line, file, shown)
        if columns is None or not columns.holds_answers:
            self.unread.append(shown)

    def _add(self, row: Row, columns: Columns, line: int, file: Path, shown: str) -> None:
        role = columns.get(row, "role")
        if role is not None and not str(role).startswith(("rollout", "assistant")):
            self.left_out += 1
            return
        place = f"{shown}:{line}"
        question = self._question(columns.get(row, "prompt"))
        completion = _text(columns.get(row, "completion"))
        right = _right(columns.get(row, "right"), place)
        reward = number_of(columns.get(row, "reward"))
        if reward is None and right == UNKNOWN and columns.has("right"):
            # A score between 0 and 1 under a name of verdicts, such as verl's `acc`.
            reward = number_of(columns.get(row, "right"))
        tokens = number_of(columns.get(row, "tokens"))
        part = self.train
        table = TRL_TABLE.fullmatch(file.name)
        is_replaced = table is not None and int(table[1]) in self._evaluated
        if is_replaced or _is_held_out(columns.get(row, "split"), shown):
            part = self.evaluation
        part.add(
            self._code(row, columns, question, place),
            _step(columns.get(row, "step"), file),
            math.nan if reward is None else reward,
            right,
            UNKNOWN if tokens is None else int(tokens),
            _truncated(row, columns, role),
            hash(completion),
            len(self.files) - 1,
            line,
        )
        critique = columns.get(row, "critique")
        if critique:
            answer = columns.get(row, "answer")
            self.leaks.add(str(critique), question, answer, place)

    def _question(self, prompt: Any) -> str:
        """The question with one space where there was white space."""
        # Answers of a group follow each other.
        if prompt is not self._last_prompt and prompt != self._last_prompt:
            words = _text(prompt, is_prompt=True).split()
            self._last_prompt = prompt
            self._last_question = " ".join(words)
        return self._last_question

    def _code(self, row: Row, columns: Columns, question: str, place: str) -> int:
        """The code of a row's problem, a new one where it is new.

        Raises:
            ConfigError: the row has neither a prompt nor an id.
        """
        named = columns.get(row, "problem")
        if named is not None:
            self.has_ids = True
        family = columns.get(row, "family")
        name = question if named is None else str(named)
        if named is not None and family is not None:
            # prime-rl numbers the examples of each environment from 0.
            name = f"{family}/{name}"
        if not name:
            raise ConfigError(f"{place}: got neither a prompt nor a problem's id, expected one")
        prompt = hash(question) if question else None
        code = self._codes.get(name)
        if code is None:
            code = len(self._problems)
            self._codes[name] = code
            self._problems.append(Problem(name, str(family or ""), prompt))
        else:
            self._add_prompt(code, prompt)
        return code

    def _add_prompt(self, code: int, prompt: int | None) -> None:
        known = self._problems[code]
        if prompt is None or known.prompt is None:
            return
        if prompt != known.prompt:
            others = known.other_prompts + 1
            self._problems[code] = replace(known, other_prompts=others)


def log_files(path: Path) -> list[Path]:
    """The files of a run, in order.

    Raises:
        ConfigError: there is none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ConfigError(f"{path}: got nothing there, expected a log or a folder of logs")
    logs = []
    for file in sorted(path.rglob("*"), key=_natural):
        is_settings = file.name in SETTINGS_FILES
        if file.is_file() and is_log(file) and not is_settings:
            logs.append(file)
    return logs


def evaluated_steps(path: Path) -> set[int]:
    """Steps of TRL's evaluations, whose tables replace those of training at the same step.

    They stand in trainer_state.json of a checkpoint: TRL 1.16 does not say it in the table.
    """
    steps: set[int] = set()
    if not path.is_dir():
        return steps
    for file in path.rglob("trainer_state.json"):
        try:
            history = json.loads(file.read_text(encoding="utf-8"))["log_history"]
            for row in history:
                if any(name.startswith("eval_") for name in row):
                    steps.add(int(row["step"]))
        except (ValueError, KeyError, TypeError, OSError):
            continue
    return steps


def _natural(path: Path) -> list[Any]:
    """Sorts step_2 before step_10."""
    parts: list[Any] = re.split(r"(\d+)", str(path))
    # The pieces between digits and the digits take turns.
    parts[1::2] = map(int, parts[1::2])
    return parts


def read_settings(path: Path) -> dict[str, Any]:
    """Settings beside a log, flat ("optim.lr"); {} where there are none, or none can be read."""
    import yaml

    folder = path if path.is_dir() else path.parent
    for name in SETTINGS_FILES:
        file = folder / name
        if not file.is_file():
            continue
        try:
            text = file.read_text(encoding="utf-8")
            # JSON is YAML too, but for a few spellings of numbers.
            raw = yaml.safe_load(text)
            if name.endswith("json"):
                raw = json.loads(text)
        except (ValueError, OSError, yaml.YAMLError):
            continue
        if isinstance(raw, Mapping):
            return dict(_flat(raw))
    return {}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and set(value) - {"value", "desc"}:
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, Mapping):
            # wandb's config.yaml has {"value": ...} under each key.
            inner = value.get("value")
            if isinstance(inner, Mapping):
                yield from _flat(inner, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", inner
        else:
            yield f"{prefix}{key}", value


# ---- values of one row ---------------------------------------------------------------------------


def _text(value: Any, is_prompt: bool = False) -> str:
    """The text of a prompt or a completion."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    is_conversation = isinstance(value, list)
    if is_conversation:
        is_conversation = all(isinstance(part, Mapping) for part in value)
    if is_conversation and is_prompt:
        value = question_of(value)
    elif is_conversation:
        value = text_of(value)
    return str(value)


def _right(value: Any, place: str) -> int:
    """1, 0 or -1 of a verdict in any spelling.

    Raises:
        ConfigError: a word that is no verdict.
    """
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return int(value)
    number = number_of(value)
    if number is not None:
        return int(number) if number in (0.0, 1.0) else UNKNOWN
    word = str(value).strip().lower()
    if word in RIGHT_WORDS:
        return 1
    if word in WRONG_WORDS:
        return 0
    if word in UNJUDGED_WORDS:
        return UNKNOWN
    raise ConfigError(
        f"{place}: got the verdict {str(value)[:40]!r}, expected true or false, 1 or 0, right or "
        "wrong: name another column in a mapping file, columns: {right: NAME}"
    )


def _step(value: Any, file: Path) -> int:
    number = number_of(value)
    if number is not None:
        return int(number)
    for name in (file.name.split(".")[0], file.parent.name):
        match = STEP_IN_NAME.search(name)
        if match:
            return int(match[1] or match[2])
    return UNKNOWN


def _is_held_out(split: Any, shown: str) -> bool:
    if isinstance(split, bool):
        return split
    if split is not None:
        return EVALUATION.search(str(split).lower()) is not None
    return EVALUATION.search(shown.lower()) is not None


def _truncated(row: Row, columns: Columns, role: Any) -> int:
    name = str(role)
    if name.startswith("rollout"):
        return int("truncated" in name)
    value = columns.get(row, "truncated")
    if value is not None:
        number = number_of(value)
        if number is not None:
            return int(number != 0)
        word = str(value).strip().lower()
        return int(word == "true")
    reason = columns.get(row, "finish_reason")
    if reason is not None:
        word = str(reason).lower()
        return int(word in FINISHED_EARLY)
    return UNKNOWN
