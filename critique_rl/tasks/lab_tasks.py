"""Tasks of the embedded worlds and of reasoning-gym's leg counting."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from critique_rl.config.checks import ConfigError, check_keys
from critique_rl.config.schema import TaskConfig
from critique_rl.lab import chain, facts, legs, tiers
from critique_rl.tasks.task import Row, Task
from critique_rl.tasks.verifiers import (
    boxed_answer,
    boxed_answer_evaluated,
    hash_confidence,
    hash_line,
)
from critique_rl.types import Attempt, Verdict


def _lab_row(problem: chain.Problem, family: str) -> Row:
    question = problem.question
    solution = chain.format_working(problem, list(problem.values))
    return {
        "prompt": [{"role": "user", "content": question}],
        "question": question,
        "answer": problem.answer,
        "solution": solution,
        "family": family,
        "id": question,
    }


def _judge_chain(text: str, row: Row) -> Verdict:
    """The last line decides; a failed working also has the spans of its wrong steps, for the
    metrics on faulty tokens.
    """
    verdict = hash_line(text, row)
    return (
        replace(verdict, faults=chain.faulty_spans(str(row["question"]), text))
        if verdict.failed
        else verdict
    )


def _counts(config: TaskConfig, families: tuple[str, ...]) -> dict[str, int]:
    """Training rows of each family: `config.size` shared out."""
    shares = dict(config.families) or dict.fromkeys(families, 1 / len(families))
    check_keys(shares, families, "task, families")
    total = sum(shares.values())
    return {family: round(config.size * share / total) for family, share in shares.items()}


def _lab_chain(config: TaskConfig, seed: int) -> Task:
    counts = _counts(config, chain.FAMILIES)
    train = [
        _lab_row(problem, family)
        for family, count in counts.items()
        for problem in chain.problems(family, "train", count, seed)
    ]
    random.Random(seed).shuffle(train)

    def held_out(split: str, count: int) -> list[Row]:
        return [
            _lab_row(problem, family)
            for family in chain.FAMILIES
            for problem in chain.problems(family, split, count, 0)
        ]

    def says(words: dict[str, str]) -> Callable[[Attempt], str]:
        return lambda attempt: chain.oracle_critique(attempt.question, words)

    return Task(
        config.name, train, held_out, _judge_chain, says(chain.WORDS), "lab/", says(chain.REWORDED)
    )


def _legs_row(problem: legs.Problem, family: str) -> Row:
    return {
        "prompt": [{"role": "user", "content": problem.question}],
        "question": problem.question,
        "answer": problem.answer,
        "solution": legs.work(problem, problem.legs),
        "family": family,
        "id": problem.question[len(legs.preamble()) :].strip(),
    }


def _judge_legs(text: str, row: Row) -> Verdict:
    """The last line decides, as reasoning-gym's scorer would: "007" is not "7" there."""
    verdict = hash_line(text, row)
    if verdict.outcome == "right" and verdict.answer != row["answer"]:
        verdict = replace(verdict, outcome="wrong")
    return (
        replace(verdict, faults=legs.faulty_spans(str(row["question"]), text))
        if verdict.failed
        else verdict
    )


def _lab_legs(config: TaskConfig, seed: int) -> Task:
    check_keys(config.options, (), "task, options")

    def rows(split: str, counts: Mapping[str, int], seed: int) -> list[Row]:
        try:
            return [
                _legs_row(problem, family)
                for family, count in counts.items()
                for problem in legs.problems(family, split, count, seed)
            ]
        except ImportError as error:
            raise ConfigError(f"task: {error}") from error

    train = rows("train", _counts(config, legs.FAMILIES), seed)
    random.Random(seed).shuffle(train)
    oracle = lambda attempt: legs.oracle_critique(attempt.question, attempt.text)  # noqa: E731
    return Task(
        config.name,
        train,
        lambda split, count: rows(split, dict.fromkeys(legs.FAMILIES, count), 0),
        _judge_legs,
        oracle,
        "lab/",
    )


def _lab_tiers(config: TaskConfig, seed: int) -> Task:
    check_keys(config.options, (), "task, options")

    def row(problem: tiers.Problem, family: str) -> Row:
        question = problem.question
        return {
            "prompt": [{"role": "user", "content": question}],
            "question": question,
            "answer": problem.answer,
            "family": family,
            "id": question,
        }

    rows = _drawn(tiers.problems, row)
    return Task(
        config.name,
        _train(config, tiers.FAMILIES, rows, seed),
        _held_out(tiers.FAMILIES, rows),
        hash_confidence,
        prompts="lab/",
    )


def _lab_facts(config: TaskConfig, seed: int) -> Task:
    check_keys(config.options, (), "task, options")

    def row(entity: str, family: str) -> Row:
        return {
            "prompt": [{"role": "user", "content": entity}],
            "question": entity,
            "answer": facts.answer(entity),
            "family": family,
            "id": entity,
        }

    rows = _drawn(facts.problems, row)
    train, held_out = _train(config, facts.FAMILIES, rows, seed), _held_out(facts.FAMILIES, rows)
    return Task(
        config.name,
        train,
        held_out,
        boxed_answer,
        prompts="lab/",
        evaluator=boxed_answer_evaluated,
        abstains=True,
    )


Rows = Callable[[str, str, int, int], list[Row]]
"""(family, split, count, seed) -> rows."""


def _drawn(
    problems: Callable[[str, str, int, int], list[Any]], row: Callable[[Any, str], Row]
) -> Rows:
    def rows(family: str, split: str, count: int, seed: int) -> list[Row]:
        try:
            return [row(problem, family) for problem in problems(family, split, count, seed)]
        except ValueError as error:
            raise ConfigError(f"task: {error}") from error

    return rows


def _train(config: TaskConfig, families: tuple[str, ...], rows: Rows, seed: int) -> list[Row]:
    train = [
        row
        for family, count in _counts(config, families).items()
        for row in rows(family, "train", count, seed)
    ]
    random.Random(seed).shuffle(train)
    return train


def _held_out(families: tuple[str, ...], rows: Rows) -> Callable[[str, int], list[Row]]:
    return lambda split, count: [
        row for family in families for row in rows(family, split, count, 0)
    ]


LAB = {
    "lab/chain": _lab_chain,
    "lab/legs": _lab_legs,
    "lab/tiers": _lab_tiers,
    "lab/facts": _lab_facts,
}
