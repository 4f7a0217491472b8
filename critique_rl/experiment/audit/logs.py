"""The logged answers of one run, as arrays: a million of them take some fifty megabytes.

Texts are not kept, but for problems: of an answer its digest stays, to find copies by.

Axis N: answers of one part of a run, training or evaluation, in the order of the log.
"""

from __future__ import annotations

import json
import math
import os
import re
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from critique_rl.config.checks import ConfigError
from critique_rl.experiment.audit import trackio
from critique_rl.experiment.audit.columns import Columns, Row, number_of
from critique_rl.experiment.audit.files import NumberedRow, is_log, read_rows, stem_of
from critique_rl.experiment.audit.leaks import LeakCount
from critique_rl.experiment.audit.mapping import LogMapping
from critique_rl.experiment.audit.settings import SETTINGS_FILES, is_vf_eval, read_settings
from critique_rl.experiment.audit.values import (
    HELD_OUT,
    UNKNOWN,
    is_held_out,
    right_of,
    split_of,
    step_of,
    text,
    tokens_of,
    truncated_of,
)

TRL_TABLE = re.compile(r"completions_0*(\d+)\.parquet")
WHOLE = re.compile(r"^(-?\d+)\.0+$")
"""An integer that was written as a fraction."""
FIRST_ROWS = 256
"""Rows of a file that its columns are first chosen by."""
LEFT_OUT = ("candidate", "refinement", "expert")
"""Roles of rows that answer something else than the plain question."""


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
    is_held_out: bool
    """Whether it is of an evaluation: some trainers number both parts from 0."""


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
    left_out_tokens: int
    """Tokens of refinements, which the policy sampled too."""
    skipped: int
    """Rows that hold neither an answer nor a verdict, such as events."""
    unread: tuple[str, ...]
    """Files of the folder that hold no judged answers."""
    columns: Mapping[str, str]
    """Key of `NAMES` -> the column that was read, in the last file."""

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
        self.left_out_tokens = 0
        self.skipped = 0
        self.has_ids = False
        self.columns = Columns(mapping.columns, "")
        self._missing: set[str] = set()
        self._codes: dict[tuple[bool, str], int] = {}
        self._problems: list[Problem] = []
        self._evaluated: set[int] = set()
        self._step_names: tuple[str, ...] = ()
        self._last_prompt: Any = None
        self._last_question = ""

    def read(self, path: Path) -> RunLog:
        """Read a file, or all logs of answers in a folder.

        Raises:
            ConfigError: nothing is there, no file holds judged answers, or one is damaged.
        """
        self._evaluated = evaluated_steps(path)
        for file in log_files(path):
            self._read_file(file, path)
        if not self.files:
            self._refuse_no_answers(path)
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
            left_out_tokens=self.left_out_tokens,
            skipped=self.skipped,
            unread=tuple(self.unread),
            columns=self.columns.used,
        )

    def _refuse_no_answers(self, path: Path) -> None:
        """Say why nothing could be read.

        Raises:
            ConfigError: always.
        """
        if self._missing:
            listed = ", ".join(sorted(self._missing))
            raise ConfigError(f"{path}: got no column {listed}, which the mapping names")
        listed = ", ".join(self.unread[:5]) or "no file of these kinds"
        raise ConfigError(
            f"{path}: got {listed}, expected a log with a question, an answer and a reward (or a "
            "verdict) per row; name its columns in a mapping file (--mapping)"
        )

    def _read_file(self, file: Path, root: Path) -> None:
        is_alone = file == root
        shown = file.name
        if not is_alone:
            shown = str(file.relative_to(root))
        if not is_alone and not file.stat().st_size:
            self.unread.append(shown)
            return
        columns = Columns(self.mapping.columns, shown)
        rows = read_rows(file)
        first = list(islice(rows, FIRST_ROWS))
        columns.learn(row for _, row in first)
        if not columns.holds_answers:
            self.unread.append(shown)
            self._missing.update(columns.missing)
            return
        self.files.append(shown)
        # A file that was named alone is one run's, whatever its name says.
        place = ""
        if not is_alone:
            place = shown
        if HELD_OUT.fullmatch(f"{root.name.lower()}/"):
            place = f"{root.name}/{shown}"
        self._step_names = _step_names(file, root)
        self._add_rows(chain(first, rows), columns, file, place)
        self.columns = columns

    def _add_rows(
        self, rows: Iterable[NumberedRow], columns: Columns, file: Path, place: str
    ) -> None:
        shown = self.files[-1]
        table = TRL_TABLE.fullmatch(file.name)
        by_name = is_held_out(place) or is_vf_eval(file.parent)
        if table is not None and int(table[1]) in self._evaluated:
            by_name = True
        for line, row in rows:
            if not columns.knows(row):
                columns.learn([row])
            self._add(row, columns, line, by_name, f"{shown}:{line}")

    def _add(self, row: Row, columns: Columns, line: int, by_name: bool, place: str) -> None:
        tokens = tokens_of(columns.get(row, "tokens"))
        role = columns.get(row, "role")
        if str(role).startswith(LEFT_OUT):
            self.left_out += 1
            if not str(role).startswith("expert"):
                self.left_out_tokens += max(tokens, 0)
            return
        completion = columns.get(row, "completion")
        right = right_of(columns.get(row, "right"), place)
        reward = columns.get(row, "reward")
        if isinstance(reward, bool):
            reward = float(reward)
        reward = number_of(reward)
        if completion is None and reward is None and right == UNKNOWN:
            self.skipped += 1
            return
        question = self._question(columns.get(row, "prompt"))
        held_out = split_of(columns.get(row, "split"))
        if held_out is None:
            held_out = by_name
        part = self.evaluation if held_out else self.train
        part.add(
            self._code(row, columns, question, held_out, place),
            step_of(columns.get(row, "step"), self._step_names, place),
            math.nan if reward is None else reward,
            right,
            tokens,
            truncated_of(columns, row, role),
            hash(text(completion)),
            len(self.files) - 1,
            line,
        )
        critique = columns.get(row, "critique")
        if critique:
            answer = columns.get(row, "answer")
            self.leaks.add(str(critique), question, answer, place)

    def _question(self, prompt: Any) -> str:
        """The complete prompt with one space where there was white space."""
        # Answers of a group follow each other.
        if prompt is not self._last_prompt and prompt != self._last_prompt:
            words = text(prompt).split()
            self._last_prompt = prompt
            self._last_question = " ".join(words)
        return self._last_question

    def _code(self, row: Row, columns: Columns, question: str, held_out: bool, place: str) -> int:
        """The code of a row's problem, a new one where it is new.

        Raises:
            ConfigError: the row has neither a prompt nor an id.
        """
        named = columns.get(row, "problem")
        if isinstance(named, float) and named.is_integer():
            # A parquet column with gaps makes 1000 a fraction, 1000.0.
            named = int(named)
        if isinstance(named, str):
            # And a CSV file of it has the text.
            named = WHOLE.sub(r"\1", named.strip())
        family = columns.get(row, "family")
        name = question
        if named is not None:
            self.has_ids = True
            name = str(named)
            if family is not None:
                # prime-rl numbers the examples of each environment from 0.
                name = f"{family}/{name}"
        if not name:
            raise ConfigError(f"{place}: got neither a prompt nor a problem's id, expected one")
        code = self._codes.get((held_out, name))
        if code is None:
            code = len(self._problems)
            self._codes[held_out, name] = code
            prompt = hash(question) if question else None
            problem = Problem(name, str(family or ""), prompt, held_out)
            self._problems.append(problem)
        return code


def log_files(path: Path) -> list[Path]:
    """The files of a run, in order; each once, also where links lead to it.

    Raises:
        ConfigError: there is none.
    """
    if path.is_file() or trackio.is_run(path):
        return [path]
    if not path.is_dir():
        raise ConfigError(f"{path}: got nothing there, expected a log or a folder of logs")
    logs = []
    known: set[str] = set()
    for folder, inner, names in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in known:
            # A link that leads back.
            inner.clear()
            continue
        known.add(real)
        for name in names:
            file = Path(folder, name)
            target = os.path.realpath(file)
            if name in SETTINGS_FILES or target in known:
                continue
            if is_log(file) and file.is_file():
                known.add(target)
                logs.append(file)
    return sorted(logs, key=_natural)


def _step_names(file: Path, root: Path) -> tuple[str, ...]:
    """Names that may hold a file's step; of a run's own folder they are its name or id."""
    stem = stem_of(file.name)
    if file.parent == root or is_vf_eval(file.parent):
        return (stem,)
    return (stem, file.parent.name)


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
