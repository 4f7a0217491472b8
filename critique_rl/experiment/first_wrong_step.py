"""Can a critic find the first wrong step? Accuracy on CHAMP's human annotations, beside three rules
that read nothing.

The package champ-dataset (MIT, pip extra `champ`; Mao, Kim and Zhou 2024, arXiv 2401.06961) holds
270 competition problems, with two solutions each by GPT-3.5, GPT-4, GPT-4 Turbo or PaLM 2. People
marked the first wrong step of the 540 solutions: 444 have a marked span, 96 have no mistake.

A step is a line that is not blank. The critic reads the numbered lines and must end in a line
"First wrong step: <number or none>". Any other end is unparsable and counts as wrong; it is never
guessed. A number is right if its line touches the marked span. Left out: partial credit for
neighbouring lines.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from critique_rl._lazy import extra_advice
from critique_rl.critic.contract import Chat, without_thinking
from critique_rl.experiment.try_critics import as_json
from critique_rl.intervals import share_interval
from critique_rl.prompts import render
from critique_rl.types import Message, Usage

# Models set the line in bold, in brackets, or end it with a full stop.
LAST_LINE = re.compile(r"[\W_]*first wrong step[\W_]*(\d{1,4}|none)[\W_]*", re.IGNORECASE)
KNOWS = ("nothing", "answer", "solution")
NO_MISTAKE = 0
"""The step that a reply names with "none"."""


@dataclass(frozen=True)
class AnnotatedSolution:
    """A solution of a problem, in which people marked the first wrong step."""

    problem: str
    """The problem's identifier, which its two solutions share."""
    question: str
    answer: str
    solution: str
    """A correct solution."""
    lines: tuple[str, ...]
    """The solution to check."""
    wrong: frozenset[int]
    """Numbers (from 1) of lines that touch the first wrong step; empty if there is no mistake."""


def load_champ() -> list[AnnotatedSolution]:
    """All 540 solutions; the two of a problem stand beside each other.

    Raises:
        ImportError: champ-dataset is not installed; the message says how to install it.
    """
    try:
        from champ_dataset import load
    except ImportError as error:
        raise ImportError(
            f"localisation needs the package champ-dataset; {extra_advice('champ')}"
        ) from error
    solutions = []
    for problem in load("v0").problems.values():
        for annotation in problem.fws_annotations.values():
            solutions.append(_annotated_solution(problem, annotation))
    return solutions


def _annotated_solution(problem: Any, annotation: Any) -> AnnotatedSolution:
    lines = []
    wrong = set()
    steps = [match for match in re.finditer(r"[^\n]+", annotation.text) if match[0].strip()]
    for number, match in enumerate(steps, 1):
        lines.append(match[0].strip())
        # CHAMP marks characters, from start_idx up to end_idx, and None for no mistake.
        if annotation.start_idx is None:
            continue
        if match.start() < annotation.end_idx and annotation.start_idx < match.end():
            wrong.add(number)
    return AnnotatedSolution(
        problem=problem.identifier,
        question=problem.text,
        answer=problem.answer,
        solution="\n".join(step.text for step in problem.solution.steps),
        lines=tuple(lines),
        wrong=frozenset(wrong),
    )


def read_step(reply: str, lines: int) -> int | None:
    """The step that the last line of a reply names.

    Args:
        reply: The critic's text.
        lines: How many lines the solution has.

    Returns:
        1 to `lines`, or `NO_MISTAKE` for none; None if the line has another form, or names a line
        that is not there.
    """
    last = without_thinking(reply).strip().rpartition("\n")[2]
    match = LAST_LINE.fullmatch(last)
    if match is None:
        return None
    if match[1].lower() == "none":
        return NO_MISTAKE
    step = int(match[1])
    if 1 <= step <= lines:
        return step
    return None


def critic_prompt(item: AnnotatedSolution, knows: str) -> str:
    """The critic's prompt; `knows` is one of `KNOWS`."""
    secrets = {"answer": "", "solution": ""}
    if knows != "nothing":
        secrets[knows] = getattr(item, knows)
    return render("first_wrong_step", question=item.question, lines=list(item.lines), **secrets)


def localisation_accuracy(
    chat: Chat, items: Sequence[AnnotatedSolution], knows: str = "nothing"
) -> dict[str, Any]:
    """A critic's accuracy in finding the first wrong step.

    Args:
        chat: The model that is asked.
        items: Solutions to check.
        knows: One of `KNOWS`.

    Returns:
        The intervals of `accuracy`; "lost", how many replies gave no step, by reason;
        "critic_tokens" and "usd".
    """
    conversations: list[list[Message]] = []
    for item in items:
        conversations.append([{"role": "user", "content": critic_prompt(item, knows)}])
    replies = chat.answer(conversations)
    right = []
    lost: Counter[str] = Counter()
    unparsable = 0
    for reply, item in zip(replies, items, strict=True):
        step = None
        if reply.status == "ok":
            step = read_step(reply.text, len(item.lines))
            unparsable += step is None
        else:
            lost[f"{reply.status}: {reply.reason}"] += 1
        right.append(step is not None and is_right(step, item))
    if unparsable:
        lost["unparsable"] = unparsable
    usage = sum((reply.usage for reply in replies), Usage())
    return {
        **accuracy(right, items),
        "lost": dict(lost),
        "critic_tokens": usage.prompt_tokens + usage.completion_tokens,
        "usd": usage.usd,
    }


def is_right(step: int, item: AnnotatedSolution) -> bool:
    """Whether the step touches the marked span, or step and people agree on no mistake."""
    if step == NO_MISTAKE:
        return not item.wrong
    return step in item.wrong


def baselines(items: Sequence[AnnotatedSolution]) -> dict[str, dict[str, Any]]:
    """Accuracies of rules that read nothing.

    `random` takes one of the lines or none, each with the same chance; its accuracy is exact.
    """
    first = [is_right(1, item) for item in items]
    no_mistake = [is_right(NO_MISTAKE, item) for item in items]
    # Of len(lines) + 1 choices, the wrong lines are right, or "none" if there is no wrong line.
    chance = []
    for item in items:
        right_choices = max(len(item.wrong), 1)
        choices = len(item.lines) + 1
        chance.append(right_choices / choices)
    return {
        "always step 1": accuracy(first, items),
        "random": accuracy(chance, items),
        "always no error": accuracy(no_mistake, items),
    }


def accuracy(right: Sequence[float], items: Sequence[AnnotatedSolution]) -> dict[str, Any]:
    """Accuracy over all solutions, over those with a mistake, and over those without.

    Args:
        right: Per solution, whether (or with which chance) its step is right.
        items: The solutions.

    Returns:
        {"accuracy", "with_mistake", "without_mistake"}: each {"mean", "ci95"}, or None without such
        solutions.
    """
    everything = [True] * len(items)
    with_mistake = [bool(item.wrong) for item in items]
    without_mistake = [not item.wrong for item in items]
    return {
        "accuracy": _mean_over_problems(right, items, everything),
        "with_mistake": _mean_over_problems(right, items, with_mistake),
        "without_mistake": _mean_over_problems(right, items, without_mistake),
    }


def _mean_over_problems(
    right: Sequence[float], items: Sequence[AnnotatedSolution], counted: Sequence[bool]
) -> dict[str, Any] | None:
    # A problem's two solutions are averaged first: they are not two independent observations.
    values_by_problem: dict[str, list[float]] = defaultdict(list)
    for value, item, counts in zip(right, items, counted, strict=True):
        if counts:
            values_by_problem[item.problem].append(float(value))
    if not values_by_problem:
        return None
    means = [float(np.mean(values)) for values in values_by_problem.values()]
    return as_json(share_interval([means]))
