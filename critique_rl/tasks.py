"""Problems and datasets as rows: the lab and reasoning-gym. Left out for now: JSONL, Parquet and Hub datasets.

A row has `prompt` (conversational), `question`, `answer`, `family`, `id`, in the lab `solution` too; every column
reaches reward functions, verifier and critic.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from critique_rl.config import ConfigError, TaskConfig, check_keys, suggest
from critique_rl.gym import gym_rows
from critique_rl.lab import chain
from critique_rl.types import Attempt, Verdict, Verifier
from critique_rl.verifier import by_name, hash_line

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """A task ready to train on: its rows by split, its verifier, its own checker in words (None if it has none), its folder of prompts."""

    name: str
    train: list[Row]
    held_out: Callable[[str, int], list[Row]]
    """(split, problems a family) -> rows."""
    verifier: Verifier
    oracle: Callable[[Attempt], str] | None = None
    prompts: str = ""
    """Prefix of template names: "" or "lab/"."""


def load_task(config: TaskConfig, seed: int) -> Task:
    """The task a pipeline names; the seed orders and draws the training rows, held-out rows are the same for every seed."""
    kind, _, name = config.name.partition("/")
    if config.name == "lab/chain":
        return _lab_chain(config, seed)
    if kind == "reasoning-gym" and name:
        return _reasoning_gym(config, name, seed)
    raise ConfigError(f"task: unknown name {config.name!r}; {suggest(config.name, ('lab/chain', 'reasoning-gym/<dataset>'))}")


def _lab_row(problem: chain.Problem, family: str) -> Row:
    question = problem.question
    solution = chain.written(problem, list(problem.values))
    return {
        "prompt": [{"role": "user", "content": question}],
        "question": question,
        "answer": problem.answer,
        "solution": solution,
        "family": family,
        "id": question,
    }


def _judge_chain(text: str, row: Row) -> Verdict:
    """The last line decides; a failed working also has the spans of its wrong steps, for the metrics on faulty tokens."""
    verdict = hash_line(text, row)
    return replace(verdict, faults=chain.faulty_spans(str(row["question"]), text)) if verdict.failed else verdict


def _lab_chain(config: TaskConfig, seed: int) -> Task:
    shares = dict(config.families) or dict.fromkeys(chain.FAMILIES, 1 / 3)
    check_keys(shares, chain.FAMILIES, "task, families")
    total = sum(shares.values())
    counts = {family: round(config.size * share / total) for family, share in shares.items()}
    train = [_lab_row(problem, family) for family, count in counts.items() for problem in chain.problems(family, "train", count, seed)]
    random.Random(seed).shuffle(train)

    def held_out(split: str, count: int) -> list[Row]:
        return [_lab_row(problem, family) for family in chain.FAMILIES for problem in chain.problems(family, split, count, 0)]

    return Task(config.name, train, held_out, _judge_chain, lambda attempt: chain.oracle_critique(attempt.question), "lab/")


def _reasoning_gym(config: TaskConfig, name: str, seed: int) -> Task:
    def rows(split: str, count: int, seed: int = 0) -> list[Row]:
        try:
            return gym_rows(name, count, seed, split=split, **config.options)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"task: {error}") from error

    return Task(config.name, rows("train", config.size, seed), rows, by_name("last_number"))
