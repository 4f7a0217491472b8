"""The task that a pipeline names: lab, reasoning-gym, word problems, or the user's data."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from critique_rl.config.checks import ConfigError, check_keys, read_section, suggest
from critique_rl.config.schema import TaskConfig
from critique_rl.tasks.code.humaneval import HUMANEVAL, split_rows
from critique_rl.tasks.code.user_tests import refuse_without_tests, with_tests
from critique_rl.tasks.code.verifier import TestsVerifier
from critique_rl.tasks.data_source import DataOptions
from critique_rl.tasks.gym_rows import gym_rows
from critique_rl.tasks.isolated_verifiers import build_verifier
from critique_rl.tasks.lab_tasks import LAB_TASKS
from critique_rl.tasks.row import Row
from critique_rl.tasks.task import Task
from critique_rl.tasks.user_data import UserData, load_user_data
from critique_rl.tasks.verifiers import last_number
from critique_rl.tasks.words.oracle import oracle_critique
from critique_rl.tasks.words.problems import load_problems

WORDS = "reasoning-core/words"


@dataclass(frozen=True)
class WordOptions:
    """`task.options` of the word problems."""

    with_working: bool = False
    """Only questions with a working, so that the oracle has words on all of them."""


def load_task(config: TaskConfig, seed: int) -> Task:
    """Load the task that a pipeline names.

    Args:
        config: The `task:` section.
        seed: Orders and draws the training rows. Held-out rows are the same for every seed.

    Raises:
        ConfigError: For an unknown name, options that the task does not take, data that cannot be
            read, and a verifier that cannot be built.
    """
    task = _named_task(config, seed)
    if config.repeat_one is not None:
        train = _repeat_row(task.train, config.repeat_one)
        task = replace(task, train=train)
    if config.verifier:
        verifier = build_verifier(config.verifier)
        if isinstance(verifier, TestsVerifier):
            refuse_without_tests(task.train, verifier.columns)
        task = replace(task, verifier=verifier)
    return task


def _named_task(config: TaskConfig, seed: int) -> Task:
    """The task with its default verifier. Raises ConfigError as `load_task` does."""
    if config.name in LAB_TASKS:
        return LAB_TASKS[config.name](config, seed)
    if config.name == "data":
        return _data_task(config, seed)
    if config.name == WORDS:
        return _words_task(config, seed)
    if config.name == HUMANEVAL:
        return _humaneval_task(config, seed)
    dataset = config.name.removeprefix("reasoning-gym/")
    if dataset and dataset != config.name:
        return _gym_task(config, dataset, seed)
    known = (*LAB_TASKS, "reasoning-gym/<dataset>", WORDS, HUMANEVAL, "data")
    advice = suggest(config.name, known)
    raise ConfigError(f"task: unknown name {config.name!r}; {advice}")


def _repeat_row(rows: list[Row], which: int | str) -> list[Row]:
    """As many rows, all of them copies of the one at place `which`, or with that id.

    Raises:
        ConfigError: Where there is no such row.
    """
    if isinstance(which, int) and not isinstance(which, bool):
        # A negative place would count from the end.
        matches = rows[which : which + 1] if which >= 0 else []
    else:
        matches = [row for row in rows if row["id"] == which]
    if not matches:
        ids = [repr(row["id"]) for row in rows[:3]]
        examples = ", ".join(ids)
        last = len(rows) - 1
        raise ConfigError(
            f"task.repeat_one: got {which!r}, expected a place from 0 to {last}, "
            f"or the id of a training prompt, such as {examples}"
        )
    return matches[:1] * len(rows)


def _gym_task(config: TaskConfig, dataset: str, seed: int) -> Task:
    def rows(split: str, count: int, seed: int = 0) -> list[Row]:
        """Raises ConfigError for options that the dataset does not take."""
        try:
            return gym_rows(dataset, count, seed, split=split, **config.options)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"task: {error}") from error

    train = rows("train", config.size, seed)
    return Task(config.name, train, rows, last_number)


def _words_task(config: TaskConfig, seed: int) -> Task:
    """Raises ConfigError for unknown options, and without the package that has the questions."""
    options = read_section(WordOptions, config.options, "task.options")
    try:
        problems = load_problems()
    except (ImportError, ValueError) as error:
        raise ConfigError(f"task: {error}") from error

    def held_out(split: str, count: int) -> list[Row]:
        return problems.held_out(split, count, options.with_working)

    train = _training_rows(problems.rows("train", options.with_working), config, seed)
    return Task(config.name, train, held_out, last_number, oracle_critique)


def _humaneval_task(config: TaskConfig, seed: int) -> Task:
    """Raises ConfigError for options, and without the package that has the problems."""
    check_keys(config.options, (), "task.options")

    def rows(split: str) -> list[Row]:
        """Raises ConfigError without the package."""
        try:
            return split_rows(split)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"task: {error}") from error

    def held_out(split: str, count: int) -> list[Row]:
        return rows(split)[:count]

    train = _training_rows(rows("train"), config, seed)
    # One that the pipeline names takes its place.
    verifier = last_number if config.verifier else build_verifier("tests")
    return Task(config.name, train, held_out, verifier)


def _data_task(config: TaskConfig, seed: int) -> Task:
    options = read_section(DataOptions, config.options, "task.options")
    # A user's code may judge by running tests or by other columns; our rules compare answers.
    kind = config.verifier
    if isinstance(config.verifier, Mapping):
        kind = config.verifier.get("kind")
    data = load_user_data(options, kind not in ("python", "command", "tests"))
    if kind == "tests":
        data = with_tests(data, config.verifier)
    if not config.verifier:
        _check_numbers(data)
    rows = data.splits["train"]
    train = _training_rows(rows, config, seed)
    return Task(config.name, train, data.held_out, last_number)


def _check_numbers(data: UserData) -> None:
    """Raise ConfigError where an answer is no number: without a verifier they are compared so."""
    others = data.without_number()
    if others:
        total = 0
        for rows in data.splits.values():
            total += len(rows)
        example = others[0][:60]
        count = len(others)
        raise ConfigError(
            f"task.verifier: {count} of {total} answers are no plain numbers, "
            f"such as {example!r}; choose one: math (LaTeX, expressions), "
            "choice (a letter), boxed_answer (short texts), "
            "{kind: python, target: my_rewards:judge} (anything), "
            "{kind: command, argv: [...]} (a program of another environment), "
            "or last_number (what holds no number goes unscored)"
        )


def _training_rows(rows: list[Row], config: TaskConfig, seed: int) -> list[Row]:
    """Training rows in the seed's order, at most `config.size`.

    With shares of families, as many rows as keep the shares. Raises ConfigError for an unknown
    family.
    """
    shuffled = list(rows)
    random.Random(seed).shuffle(shuffled)
    available = Counter(row["family"] for row in shuffled)
    check_keys(config.families, available, "task, families")
    left = _family_counts(config, available)
    chosen = []
    for row in shuffled:
        family = row["family"]
        if left.get(family, 0) > 0:
            left[family] -= 1
            chosen.append(row)
    return chosen[: config.size]


def _family_counts(config: TaskConfig, available: Mapping[str, int]) -> dict[str, int]:
    """The most rows to take of each family: as many as keep the shares of `config.families`."""
    total = sum(config.families.values())
    shares = {}
    for family, share in config.families.items():
        if share:
            shares[family] = share / total
    if not shares:
        return dict.fromkeys(available, config.size)
    # The family that runs out first, against its share, sets the size.
    size: float = config.size
    for family, share in shares.items():
        largest = available[family] / share
        size = min(size, largest)
    counts = {}
    for family, share in shares.items():
        counts[family] = round(size * share)
    return counts
