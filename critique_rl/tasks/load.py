"""Problems and datasets as rows: the lab, reasoning-gym, and data of the user's own (`own_data`).

A row has `prompt` (conversational, or a text), `question`, `answer`, `family`, `id`, in the lab
`solution` too; every column reaches reward functions, verifier and critic.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

from critique_rl.config.checks import ConfigError, check_keys, read_section, suggest
from critique_rl.config.schema import TaskConfig
from critique_rl.tasks.gym_rows import gym_rows
from critique_rl.tasks.isolated_verifiers import build_verifier
from critique_rl.tasks.lab_tasks import LAB
from critique_rl.tasks.task import Row, Task
from critique_rl.tasks.user_data import DataOptions, UserData, load_user_data
from critique_rl.tasks.verifiers import find_verifier


def load_task(config: TaskConfig, seed: int) -> Task:
    """The task a pipeline names; the seed orders and draws the training rows, held-out rows are the
    same for every seed.
    """
    task = _named(config, seed)
    return replace(task, verifier=build_verifier(config.verifier)) if config.verifier else task


def _named(config: TaskConfig, seed: int) -> Task:
    kind, _, name = config.name.partition("/")
    if config.name in LAB:
        task = LAB[config.name](config, seed)
    elif kind == "reasoning-gym" and name:
        task = _reasoning_gym(config, name, seed)
    elif config.name == "data":
        task = _own_data(config, seed)
    else:
        raise ConfigError(
            f"task: unknown name {config.name!r}; {suggest(config.name, (*LAB, 'reasoning-gym/<dataset>', 'data'))}"
        )
    return (
        task
        if config.repeat_one is None
        else replace(task, train=_repeated(task.train, config.repeat_one))
    )


def _repeated(rows: list[Row], which: int | str) -> list[Row]:
    """As many rows, all of them the one at place `which`, or with that id."""
    if isinstance(which, int) and not isinstance(which, bool):
        found = rows[which : which + 1] if which >= 0 else []
    else:
        found = [row for row in rows if row["id"] == which][:1]
    if not found:
        few = ", ".join(repr(row["id"]) for row in rows[:3])
        raise ConfigError(
            f"task.repeat_one: got {which!r}, expected a place from 0 to {len(rows) - 1}, or the id of a training prompt, such as {few}"
        )
    return found * len(rows)


def _reasoning_gym(config: TaskConfig, name: str, seed: int) -> Task:
    def rows(split: str, count: int, seed: int = 0) -> list[Row]:
        try:
            return gym_rows(name, count, seed, split=split, **config.options)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"task: {error}") from error

    return Task(config.name, rows("train", config.size, seed), rows, find_verifier("last_number"))


def _own_data(config: TaskConfig, seed: int) -> Task:
    options = read_section(DataOptions, config.options, "task.options")
    own = isinstance(config.verifier, Mapping) and config.verifier.get("kind") == "python"
    data = load_user_data(options, needs_answer=not own)
    if not config.verifier:
        _check_numbers(data)
    return Task(
        config.name, _own_train(data, config, seed), data.held_out, find_verifier("last_number")
    )


def _check_numbers(data: UserData) -> None:
    """Without a verifier answers are compared as numbers, so they must be some."""
    odd = data.without_number()
    if odd:
        total = sum(len(rows) for rows in data.splits.values())
        raise ConfigError(
            f"task.verifier: {len(odd)} of {total} answers are no plain numbers, such as {odd[0][:60]!r}; choose one: math (LaTeX, expressions), "
            "choice (a letter), boxed_answer (short texts), {kind: python, target: my_rewards:judge} (anything), "
            "or last_number (what holds no number goes unscored)"
        )


def _own_train(data: UserData, config: TaskConfig, seed: int) -> list[Row]:
    """Training rows in the seed's order, at most `config.size`; with shares of families as many as
    keep the shares.
    """
    rows = list(data.splits["train"])
    random.Random(seed).shuffle(rows)
    by_family: dict[str, list[Row]] = {}
    for row in rows:
        by_family.setdefault(row["family"], []).append(row)
    check_keys(config.families, by_family, "task, families")
    shares = {
        family: share / sum(config.families.values())
        for family, share in config.families.items()
        if share
    }
    size = min([config.size, *(len(by_family[family]) / share for family, share in shares.items())])
    left = {family: round(size * share) for family, share in shares.items()} or dict.fromkeys(
        by_family, config.size
    )
    chosen = []
    for row in rows:
        left[row["family"]] = left.get(row["family"], 0) - 1
        if left[row["family"]] >= 0:
            chosen.append(row)
    return chosen[: config.size]
