"""Problems and datasets as rows: the lab, reasoning-gym, and data of the user's own (`own_data`).

A row has `prompt` (conversational, or a text), `question`, `answer`, `family`, `id`, in the lab `solution` too; every column
reaches reward functions, verifier and critic.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from critique_rl.config.checks import ConfigError, check_keys, read_section, suggest
from critique_rl.config.schema import TaskConfig
from critique_rl.lab import chain, facts, legs, tiers
from critique_rl.tasks.gym_rows import gym_rows
from critique_rl.tasks.isolated_verifiers import WorkerVerifier, build_verifier
from critique_rl.tasks.user_data import DataOptions, OwnData, load
from critique_rl.tasks.verifiers import boxed_answer, boxed_answer_evaluated, by_name, hash_confidence, hash_line
from critique_rl.types import Attempt, Verdict, Verifier

Row = Mapping[str, Any]
FORMS = ("\\boxed{...}", "...", "#...", "</think><answer>...</answer><analysis></analysis><confidence>1</confidence>")
"""How an answer is written for one verifier or another; those in a process of their own take a while, and one of the first two."""


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
    reworded: Callable[[Attempt], str] | None = None
    """The checker in words that the embedded base never read."""
    evaluator: Verifier | None = None
    """Judges evaluations, where they are judged by another rule than training is (`lab/facts`); None: the verifier."""
    abstains: bool = False
    """Answers may abstain: evaluations measure truthfulness even where none did."""

    def is_answer(self, piece: str, row: Row) -> bool:
        """True where the task's verifier takes this piece of a text, written in one of the forms of an answer, as right."""
        forms = FORMS[:2] if isinstance(self.verifier, WorkerVerifier) else FORMS
        return any(self.verifier(form.replace("...", piece), row).outcome == "right" for form in forms)


def load_task(config: TaskConfig, seed: int) -> Task:
    """The task a pipeline names; the seed orders and draws the training rows, held-out rows are the same for every seed."""
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
        raise ConfigError(f"task: unknown name {config.name!r}; {suggest(config.name, (*LAB, 'reasoning-gym/<dataset>', 'data'))}")
    return task if config.repeat_one is None else replace(task, train=_repeated(task.train, config.repeat_one))


def _repeated(rows: list[Row], which: int | str) -> list[Row]:
    """As many rows, all of them the one at place `which`, or with that id."""
    if isinstance(which, int) and not isinstance(which, bool):
        found = rows[which : which + 1] if which >= 0 else []
    else:
        found = [row for row in rows if row["id"] == which][:1]
    if not found:
        few = ", ".join(repr(row["id"]) for row in rows[:3])
        raise ConfigError(f"task.repeat_one: got {which!r}, expected a place from 0 to {len(rows) - 1}, or the id of a training prompt, such as {few}")
    return found * len(rows)


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


def _counts(config: TaskConfig, families: tuple[str, ...]) -> dict[str, int]:
    """Training rows of each family: `config.size` shared out."""
    shares = dict(config.families) or dict.fromkeys(families, 1 / len(families))
    check_keys(shares, families, "task, families")
    total = sum(shares.values())
    return {family: round(config.size * share / total) for family, share in shares.items()}


def _lab_chain(config: TaskConfig, seed: int) -> Task:
    counts = _counts(config, chain.FAMILIES)
    train = [_lab_row(problem, family) for family, count in counts.items() for problem in chain.problems(family, "train", count, seed)]
    random.Random(seed).shuffle(train)

    def held_out(split: str, count: int) -> list[Row]:
        return [_lab_row(problem, family) for family in chain.FAMILIES for problem in chain.problems(family, split, count, 0)]

    def says(words: dict[str, str]) -> Callable[[Attempt], str]:
        return lambda attempt: chain.oracle_critique(attempt.question, words)

    return Task(config.name, train, held_out, _judge_chain, says(chain.WORDS), "lab/", says(chain.REWORDED))


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
    return replace(verdict, faults=legs.faulty_spans(str(row["question"]), text)) if verdict.failed else verdict


def _lab_legs(config: TaskConfig, seed: int) -> Task:
    check_keys(config.options, (), "task, options")

    def rows(split: str, counts: Mapping[str, int], seed: int) -> list[Row]:
        try:
            return [_legs_row(problem, family) for family, count in counts.items() for problem in legs.problems(family, split, count, seed)]
        except ImportError as error:
            raise ConfigError(f"task: {error}") from error

    train = rows("train", _counts(config, legs.FAMILIES), seed)
    random.Random(seed).shuffle(train)
    oracle = lambda attempt: legs.oracle_critique(attempt.question, attempt.text)  # noqa: E731
    return Task(config.name, train, lambda split, count: rows(split, dict.fromkeys(legs.FAMILIES, count), 0), _judge_legs, oracle, "lab/")


def _lab_tiers(config: TaskConfig, seed: int) -> Task:
    check_keys(config.options, (), "task, options")

    def row(problem: tiers.Problem, family: str) -> Row:
        question = problem.question
        return {"prompt": [{"role": "user", "content": question}], "question": question, "answer": problem.answer, "family": family, "id": question}

    rows = _drawn(tiers.problems, row)
    return Task(config.name, _train(config, tiers.FAMILIES, rows, seed), _held_out(tiers.FAMILIES, rows), hash_confidence, prompts="lab/")


def _lab_facts(config: TaskConfig, seed: int) -> Task:
    check_keys(config.options, (), "task, options")

    def row(entity: str, family: str) -> Row:
        return {"prompt": [{"role": "user", "content": entity}], "question": entity, "answer": facts.answer(entity), "family": family, "id": entity}

    rows = _drawn(facts.problems, row)
    train, held_out = _train(config, facts.FAMILIES, rows, seed), _held_out(facts.FAMILIES, rows)
    return Task(config.name, train, held_out, boxed_answer, prompts="lab/", evaluator=boxed_answer_evaluated, abstains=True)


Rows = Callable[[str, str, int, int], list[Row]]
"""(family, split, count, seed) -> rows."""


def _drawn(problems: Callable[[str, str, int, int], list[Any]], row: Callable[[Any, str], Row]) -> Rows:
    def rows(family: str, split: str, count: int, seed: int) -> list[Row]:
        try:
            return [row(problem, family) for problem in problems(family, split, count, seed)]
        except ValueError as error:
            raise ConfigError(f"task: {error}") from error

    return rows


def _train(config: TaskConfig, families: tuple[str, ...], rows: Rows, seed: int) -> list[Row]:
    train = [row for family, count in _counts(config, families).items() for row in rows(family, "train", count, seed)]
    random.Random(seed).shuffle(train)
    return train


def _held_out(families: tuple[str, ...], rows: Rows) -> Callable[[str, int], list[Row]]:
    return lambda split, count: [row for family in families for row in rows(family, split, count, 0)]


def _reasoning_gym(config: TaskConfig, name: str, seed: int) -> Task:
    def rows(split: str, count: int, seed: int = 0) -> list[Row]:
        try:
            return gym_rows(name, count, seed, split=split, **config.options)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"task: {error}") from error

    return Task(config.name, rows("train", config.size, seed), rows, by_name("last_number"))


def _own_data(config: TaskConfig, seed: int) -> Task:
    options = read_section(DataOptions, config.options, "task.options")
    own = isinstance(config.verifier, Mapping) and config.verifier.get("kind") == "python"
    data = load(options, needs_answer=not own)
    if not config.verifier:
        _check_numbers(data)
    return Task(config.name, _own_train(data, config, seed), data.held_out, by_name("last_number"))


def _check_numbers(data: OwnData) -> None:
    """Without a verifier answers are compared as numbers, so they must be some."""
    odd = data.without_number()
    if odd:
        total = sum(len(rows) for rows in data.splits.values())
        raise ConfigError(
            f"task.verifier: {len(odd)} of {total} answers are no plain numbers, such as {odd[0][:60]!r}; choose one: math (LaTeX, expressions), "
            "choice (a letter), boxed_answer (short texts), {kind: python, target: my_rewards:judge} (anything), "
            "or last_number (what holds no number goes unscored)"
        )


def _own_train(data: OwnData, config: TaskConfig, seed: int) -> list[Row]:
    """Training rows in the seed's order, at most `config.size`; with shares of families as many as keep the shares."""
    rows = list(data.splits["train"])
    random.Random(seed).shuffle(rows)
    by_family: dict[str, list[Row]] = {}
    for row in rows:
        by_family.setdefault(row["family"], []).append(row)
    check_keys(config.families, by_family, "task, families")
    shares = {family: share / sum(config.families.values()) for family, share in config.families.items() if share}
    size = min([config.size, *(len(by_family[family]) / share for family, share in shares.items())])
    left = {family: round(size * share) for family, share in shares.items()} or dict.fromkeys(by_family, config.size)
    chosen = []
    for row in rows:
        left[row["family"]] = left.get(row["family"], 0) - 1
        if left[row["family"]] >= 0:
            chosen.append(row)
    return chosen[: config.size]


LAB = {"lab/chain": _lab_chain, "lab/legs": _lab_legs, "lab/tiers": _lab_tiers, "lab/facts": _lab_facts}
