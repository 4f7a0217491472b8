"""What feedback is worth to a base of `lab/code`: the share of failed attempts that each kind
rescues, after one turn of refinement, two and three, by the number of traps.

A turn shows the base its latest attempt with feedback on it. An attempt that has become right stays
so.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.table import Table

from critique_rl.critic.build import build_critic
from critique_rl.lab import code
from critique_rl.lab.programs import judge_program
from critique_rl.prompts import render
from critique_rl.sampling.sample import sample
from critique_rl.sampling.settings import Sampling
from critique_rl.tasks.judging import judge_in_portions
from critique_rl.tasks.task import Task
from critique_rl.types import Attempt

TURNS = 3
CONTROLS = (
    "message only",
    "verdict only",
    "test's name only",
    "retry",
    "values of another problem",
    "shuffled",
)
"""Kinds that do not say what is wrong with the attempt."""
Words = Callable[[Attempt], str]
"""Writes the feedback on a failed attempt."""
Rates = dict[str, list[float]]
"""{"all" or a number of traps: share rescued after 1, 2, ... turns}."""
GROUPS = {
    # All attempts, or those at problems with so many traps.
    "all": "all",
    "1": "1 trap",
    "2": "2 traps",
    "3": "3 traps",
}
"""Key of `Rates` -> its head in the table."""


@dataclass(frozen=True)
class Policy:
    """A base policy at its task."""

    model: Any
    """The policy."""
    tokenizer: Any
    """Its tokenizer."""
    task: Task
    """Its verifier judges refinements."""


def code_figures(
    model, tokenizer, task: Task, attempts: Sequence[Attempt], seed: int = 0
) -> dict[str, Any]:
    """What each kind of feedback rescues.

    Args:
        model: The base policy.
        tokenizer: Its tokenizer.
        task: The task lab/code.
        attempts: Failed attempts.
        seed: Of the answers and of draws of other problems.

    Returns:
        {"rescue": {kind: share after one turn}, "turns": {kind: `Rates`}, "attempts": their number,
        "oracle minus best control": after one turn}.
    """
    turns = {}
    policy = Policy(model, tokenizer, task)
    kinds = feedback_kinds(task, attempts, seed)
    for kind, words in kinds.items():
        turns[kind] = _rescue_by_turn(policy, attempts, words, "lab/refine")
    for kind in ("oracle", "values"):
        # A teacher of self-distillation does not see the attempt.
        name = f"{kind}, attempt not shown"
        turns[name] = _rescue_by_turn(policy, attempts, kinds[kind], "lab/teacher")
    rescue = {}
    for kind, rates in turns.items():
        first_turn = rates["all"][0]
        rescue[kind] = first_turn
    control_rates = [rescue[kind] for kind in CONTROLS]
    best_control = max(control_rates)
    return {
        "rescue": rescue,
        "turns": turns,
        "attempts": len(attempts),
        "oracle minus best control": rescue["oracle"] - best_control,
    }


# ---- kinds of feedback ---------------------------------------------------------------------------


def feedback_kinds(task: Task, attempts: Sequence[Attempt], seed: int) -> dict[str, Words]:
    """The kinds of feedback by name.

    Args:
        task: The task lab/code.
        attempts: Failed attempts at other problems, whose values are given for this one's.
        seed: Of draws of other problems.
    """
    critic = build_critic({"kind": "shuffled"}, task, seed)
    assert critic is not None, "only kind none builds no critic"

    def others(attempt: Attempt) -> str:
        return _other_values(attempt, attempts, seed)

    def shuffled(attempt: Attempt) -> str:
        [critique] = critic.critique([attempt])
        return critique.text

    return {
        "oracle": _oracle,
        "values": _values,
        "fact only": _fact,
        "ground_truth": _ground_truth,
        "message only": lambda attempt: "AssertionError",
        "verdict only": lambda attempt: "wrong",
        "test's name only": _test_name,
        "retry": lambda attempt: "",
        "values of another problem": others,
        "shuffled": shuffled,
    }


def _oracle(attempt: Attempt) -> str:
    problem = code.parse_problem(attempt.question)
    return code.oracle_critique(problem, attempt.text)


def _values(attempt: Attempt) -> str:
    problem = code.parse_problem(attempt.question)
    return code.feedback(problem, attempt.text)


def _fact(attempt: Attempt) -> str:
    words = _oracle(attempt)
    _, _, fact = words.rpartition("; ")
    return fact


def _ground_truth(attempt: Attempt) -> str:
    answer = attempt.row["answer"]
    return render("lab/ground_truth", answer=answer)


def _test_name(attempt: Attempt) -> str:
    """The number of the first failing public test: "test 2 failed"."""
    tests = attempt.row["public_tests"]
    for number, test in enumerate(tests, start=1):
        verdict = judge_program(attempt.text, [test], [])
        if verdict.failed:
            return f"test {number} failed"
    # "hidden test 3 failed" is such a name already.
    return _values(attempt)


def _other_values(attempt: Attempt, attempts: Sequence[Attempt], seed: int) -> str:
    """The values of a failed attempt at another problem, that are not this one's."""
    rng = random.Random(f"{seed}/{attempt.question}/{attempt.text}")
    words = _values(attempt)
    while True:
        other = rng.choice(attempts)
        other_words = _values(other)
        if other.question != attempt.question and other_words != words:
            return other_words


# ---- turns ---------------------------------------------------------------------------------------


def _rescue_by_turn(
    policy: Policy, attempts: Sequence[Attempt], words: Words, template: str
) -> Rates:
    """The shares of attempts that are right after 1 to TURNS turns."""
    latest = list(attempts)
    rates: Rates = {}
    for group in GROUPS:
        rates[group] = []
    for _ in range(TURNS):
        failed = [attempt for attempt in latest if attempt.verdict.failed]
        right = [attempt for attempt in latest if not attempt.verdict.failed]
        refined = _refine(policy, failed, words, template)
        latest = right + refined
        for group, shares in rates.items():
            share = _share_right(latest, group)
            shares.append(share)
    return rates


def _share_right(attempts: Sequence[Attempt], group: str) -> float:
    outcomes = []
    for attempt in attempts:
        traps = str(attempt.row["traps"])
        if group in ("all", traps):
            outcomes.append(attempt.verdict.outcome)
    right = outcomes.count("right")
    return right / max(1, len(outcomes))


def _refine(
    policy: Policy, attempts: Sequence[Attempt], words: Words, template: str
) -> list[Attempt]:
    """One refinement of each attempt, judged."""
    prompts = []
    rows = []
    for attempt in attempts:
        prompt = render(
            template,
            question=attempt.question,
            attempt=attempt.text,
            critique=words(attempt),
            solution="",
        )
        message = {"role": "user", "content": prompt}
        prompts.append([message])
        rows.append(attempt.row)
    if not prompts:
        return []
    # One seed for all kinds: they then differ in the feedback alone.
    answers = sample(policy.model, policy.tokenizer, prompts, Sampling(), seed=1)
    texts = [answer.text for answer in answers]
    verdicts = judge_in_portions(policy.task.verifier, texts, rows)
    refined = []
    for attempt, text, verdict in zip(attempts, texts, verdicts, strict=True):
        answered = replace(attempt, text=text, verdict=verdict)
        refined.append(answered)
    return refined


def turns_table(turns: dict[str, Rates]) -> Table:
    """One row per kind of feedback and turn, one column per number of traps."""
    heads = GROUPS.values()
    table = Table("feedback", "turns", *heads, title="rescued after so many turns")
    for kind, rates in turns.items():
        for turn in range(TURNS):
            cells = []
            for group in GROUPS:
                share = rates[group][turn]
                cells.append(f"{share:.3f}")
            number = str(turn + 1)
            table.add_row(kind, number, *cells)
    return table
