"""Tasks of the embedded worlds: chains, legs (reasoning-gym's leg counting), tiers, facts, code.

Training rows are shared out over the families of a world and shuffled by the seed; held-out rows
are drawn with seed 0, the same for every run.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from critique_rl.config.checks import ConfigError, check_keys
from critique_rl.config.schema import TaskConfig
from critique_rl.lab import chain, code, facts, legs, tiers
from critique_rl.lab.programs import judge_program
from critique_rl.tasks.answers.marked import BOXED
from critique_rl.tasks.row import Row
from critique_rl.tasks.task import HeldOut, Oracle, Support, Task
from critique_rl.tasks.verifiers import (
    boxed_answer,
    boxed_answer_evaluated,
    hash_confidence,
    hash_line,
)
from critique_rl.types import Attempt, Verdict

CHAIN_SOLUTIONS = ("own", "terse")
"""Values of `task.options.solution` in lab/chain: solutions as its policies write them, or in
another hand.
"""
Rows = Callable[[str, str, int, int], list[Row]]
"""(family, split, count, seed) -> rows."""
Problems = Callable[[str, str, int, int], list[Any]]
"""(family, split, count, seed) -> problems of a world."""


def _lab_chain(config: TaskConfig, seed: int) -> Task:
    """Raises ConfigError for options that the world does not have."""
    check_keys(config.options, ("solution",), "task, options")
    hand = config.options.get("solution", "own")
    if hand not in CHAIN_SOLUTIONS:
        raise ConfigError(
            f"task, options.solution: got {hand!r}, expected {' or '.join(CHAIN_SOLUTIONS)}"
        )
    to_row = _chain_row
    if hand == "terse":
        to_row = _terse_chain_row
    rows = _row_source(chain.problems, to_row)
    return Task(
        name=config.name,
        train=_training_rows(config, chain.FAMILIES, rows, seed),
        held_out=_held_out(chain.FAMILIES, rows),
        verifier=_judge_chain,
        oracle=_chain_oracle(chain.WORDS),
        prompts="lab/",
        reworded_oracle=_chain_oracle(chain.REWORDED),
        support=Support(
            _chain_answers,
            _is_chain_near_miss,
            "one step wrong, and every other step follows from the one before",
        ),
    )


def _lab_legs(config: TaskConfig, seed: int) -> Task:
    check_keys(config.options, (), "task, options")
    rows = _row_source(legs.problems, _legs_row)
    return Task(
        name=config.name,
        train=_training_rows(config, legs.FAMILIES, rows, seed),
        held_out=_held_out(legs.FAMILIES, rows),
        verifier=_judge_legs,
        oracle=_legs_oracle,
        prompts="lab/",
        support=Support(
            lambda row: legs.workings(_legs_problem(row)),
            lambda text, row: legs.is_near_miss(_legs_problem(row), text),
            "one animal's legs wrong, and all arithmetic right",
        ),
    )


def _lab_tiers(config: TaskConfig, seed: int) -> Task:
    check_keys(config.options, (), "task, options")
    rows = _row_source(tiers.problems, _tiers_row)
    return Task(
        name=config.name,
        train=_training_rows(config, tiers.FAMILIES, rows, seed),
        held_out=_held_out(tiers.FAMILIES, rows),
        verifier=hash_confidence,
        prompts="lab/",
        support=Support(
            lambda row: list(tiers.workings(_tiers_problem(row))),
            lambda text, row: tiers.is_near_miss(_tiers_problem(row), text),
            "one hidden operand guessed wrongly",
            mark=tiers.CONFIDENCE_MARK,
            judged_with="50",
            true_answers=lambda row: [tiers.true_working(_tiers_problem(row))],
        ),
    )


def _lab_facts(config: TaskConfig, seed: int) -> Task:
    check_keys(config.options, (), "task, options")
    rows = _row_source(facts.problems, _facts_row)
    return Task(
        name=config.name,
        train=_training_rows(config, facts.FAMILIES, rows, seed),
        held_out=_held_out(facts.FAMILIES, rows),
        verifier=_judge_facts,
        prompts="lab/",
        # TruthRL trains and evaluates by different rules for invalid questions.
        evaluator=_evaluate_facts,
        abstains=True,
        support=Support(
            lambda row: facts.answers(),
            lambda text, row: facts.is_near_miss(str(row["question"]), text),
            "an abstention",
        ),
    )


def _lab_code(config: TaskConfig, seed: int) -> Task:
    check_keys(config.options, (), "task, options")
    rows = _row_source(code.problems, _code_row)
    return Task(
        name=config.name,
        train=_training_rows(config, code.FAMILIES, rows, seed),
        held_out=_held_out(code.FAMILIES, rows),
        verifier=_judge_code,
        oracle=_code_oracle,
        prompts="lab/",
        support=Support(
            lambda row: code.workings(_code_problem(row)),
            lambda text, row: code.is_near_miss(_code_problem(row), text),
            "one word's number wrong, and all else right",
        ),
    )


LAB_TASKS = {
    "lab/chain": _lab_chain,
    "lab/legs": _lab_legs,
    "lab/tiers": _lab_tiers,
    "lab/facts": _lab_facts,
    "lab/code": _lab_code,
}
"""Name in a pipeline -> (config, seed) -> task."""


def _lab_row(question: str, answer: str, family: str, solution: str = "", row_id: str = "") -> Row:
    """A row of a world; its id is the question, unless given."""
    row: dict[str, Any] = {
        "prompt": [{"role": "user", "content": question}],
        "question": question,
        "answer": answer,
    }
    if solution:
        row["solution"] = solution
    row["family"] = family
    row["id"] = row_id or question
    return row


def _chain_row(problem: chain.Problem, family: str) -> Row:
    results = list(problem.values)
    solution = chain.format_working(problem, results)
    return _lab_row(problem.question, problem.answer, family, solution)


def _terse_chain_row(problem: chain.Problem, family: str) -> Row:
    solution = chain.format_tersely(problem)
    return _lab_row(problem.question, problem.answer, family, solution)


def _legs_row(problem: legs.Problem, family: str) -> Row:
    solution = legs.work(problem, problem.legs)
    # reasoning-gym puts one preamble before every question, which says nothing in an id.
    preamble = legs.preamble()
    row_id = problem.question[len(preamble) :]
    return _lab_row(problem.question, problem.answer, family, solution, row_id.strip())


def _tiers_row(problem: tiers.Problem, family: str) -> Row:
    return _lab_row(problem.question, problem.answer, family)


def _facts_row(entity: str, family: str) -> Row:
    return _lab_row(entity, facts.answer(entity), family)


def _code_row(problem: code.Problem, family: str) -> Row:
    row = _lab_row(problem.question, problem.answer, family, problem.answer)
    tests = {"public_tests": problem.public_tests, "tests": problem.hidden_tests}
    return {**row, **tests, "traps": problem.traps}


def _judge_code(text: str, row: Row) -> Verdict:
    """The verdict on a program: by all tests of its row, the public ones first."""
    return judge_program(text, row["public_tests"], row["tests"])


def _judge_facts(text: str, row: Row) -> Verdict:
    return _wrong_where_boxed(boxed_answer(text, row), text)


def _evaluate_facts(text: str, row: Row) -> Verdict:
    return _wrong_where_boxed(boxed_answer_evaluated(text, row), text)


def _wrong_where_boxed(verdict: Verdict, text: str) -> Verdict:
    """As published: whatever a closed box holds is an answer, so it is never unreadable."""
    _, _, rest = text.partition(BOXED)
    if verdict.outcome == "unreadable" and "}" in rest:
        return replace(verdict, outcome="wrong")
    return verdict


def _judge_chain(text: str, row: Row) -> Verdict:
    """`hash_line`; a failed working also has the spans of its wrong steps."""
    verdict = hash_line(text, row)
    if not verdict.failed:
        return verdict
    # For the metrics on faulty tokens, which alone read spans.
    question = str(row["question"])
    faults = chain.faulty_spans(question, text)
    return replace(verdict, faults=faults)


def _judge_legs(text: str, row: Row) -> Verdict:
    """`hash_line` on the text of the answer; a failed working also has its wrong spans."""
    verdict = hash_line(text, row)
    # As reasoning-gym's scorer has it: "007" is not "7" there.
    if verdict.outcome == "right" and verdict.answer != row["answer"]:
        verdict = replace(verdict, outcome="wrong")
    if not verdict.failed:
        return verdict
    question = str(row["question"])
    faults = legs.faulty_spans(question, text)
    return replace(verdict, faults=faults)


def _chain_answers(row: Row) -> list[str]:
    problem = chain.parse_problem(str(row["question"]))
    listed = []
    for results in chain.workings(problem):
        working = chain.format_working(problem, results)
        listed.append(working)
    # The data set's solution may be in another hand.
    solution = str(row["solution"])
    if solution not in listed:
        listed.append(solution)
    return listed


def _is_chain_near_miss(text: str, row: Row) -> bool:
    return chain.is_near_miss(chain.parse_problem(str(row["question"])), text)


def _legs_problem(row: Row) -> legs.Problem:
    return legs.parse_problem(str(row["question"]))


def _code_problem(row: Row) -> code.Problem:
    return code.parse_problem(str(row["question"]))


def _tiers_problem(row: Row) -> tiers.Problem:
    return tiers.parse_problem(str(row["question"]))


def _chain_oracle(words: dict[str, str]) -> Oracle:
    """The checker of chains, with `words` for each kind of mistake."""
    return lambda attempt: chain.oracle_critique(attempt.question, words)


def _code_oracle(attempt: Attempt) -> str:
    return code.oracle_critique(code.parse_problem(attempt.question), attempt.text)


def _legs_oracle(attempt: Attempt) -> str:
    return legs.oracle_critique(attempt.question, attempt.text)


# Checks before a run load the same task several times, and rejection makes its draws slow.
@lru_cache(maxsize=64)
def _draw(problems: Problems, family: str, split: str, count: int, seed: int) -> tuple[Any, ...]:
    return tuple(problems(family, split, count, seed))


def _row_source(problems: Problems, to_row: Callable[[Any, str], Row]) -> Rows:
    """Rows of a world's problems."""

    def rows(family: str, split: str, count: int, seed: int) -> list[Row]:
        """Raises ConfigError for too few different problems, or a package that is missing."""
        try:
            drawn = _draw(problems, family, split, count, seed)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"task: {error}") from error
        return [to_row(problem, family) for problem in drawn]

    return rows


def _training_rows(
    config: TaskConfig, families: tuple[str, ...], rows: Rows, seed: int
) -> list[Row]:
    train: list[Row] = []
    for family, count in _family_counts(config, families).items():
        train += rows(family, "train", count, seed)
    random.Random(seed).shuffle(train)
    return train


def _family_counts(config: TaskConfig, families: tuple[str, ...]) -> dict[str, int]:
    """Training rows of each family: `config.size` shared out by `config.families`, else evenly."""
    shares = config.families
    if not shares:
        even_share = 1 / len(families)
        shares = dict.fromkeys(families, even_share)
    check_keys(shares, families, "task, families")
    total = sum(shares.values())
    counts = {}
    for family, share in shares.items():
        size = config.size * share / total
        counts[family] = round(size)
    return counts


def _held_out(families: tuple[str, ...], rows: Rows) -> HeldOut:
    def held_out(split: str, count: int) -> list[Row]:
        problems: list[Row] = []
        for family in families:
            problems += rows(family, split, count, 0)
        return problems

    return held_out
