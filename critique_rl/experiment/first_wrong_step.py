"""Can a critic find the first wrong step? Accuracy on CHAMP's human annotations, beside three rules
that read nothing.

The package champ-dataset (MIT, pip extra `champ`; Mao, Kim and Zhou 2024, arXiv 2401.06961) holds
540 solutions of GPT-3.5, GPT-4, GPT-4 Turbo and PaLM 2 to 270 competition problems, in which people
marked the first wrong step: 444 with a marked span, 96 without a mistake.

A step is a line that is not blank. The critic reads the numbered lines and has to end in a line
"First wrong step: <number or none>"; any other end is unparsable and counts as wrong, never
guessed. A number is right where its line touches the marked span. Left out: partial credit for
neighbouring lines.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from critique_rl.critic.contract import Chat, without_thinking
from critique_rl.experiment.try_critics import as_json
from critique_rl.metrics import crossed_interval
from critique_rl.prompts import render
from critique_rl.types import Usage

LAST_LINE = re.compile(r"[\W_]*first wrong step[\W_]*(\d{1,4}|none)[\W_]*", re.IGNORECASE)
KNOWS = ("nothing", "answer", "solution")


@dataclass(frozen=True)
class AnnotatedSolution:
    """One solution: its lines, and the numbers (from 1) of those that touch the first wrong step,
    none where nobody marked a mistake.
    """

    problem: str
    question: str
    answer: str
    solution: str
    lines: tuple[str, ...]
    wrong: frozenset[int]


def load_champ() -> list[AnnotatedSolution]:
    """All 540, the two of a problem beside each other. ImportError that says what to install."""
    try:
        from champ_dataset import load
    except ImportError as error:
        raise ImportError(
            "localisation needs the package champ-dataset; run: pip install 'critique-rl[champ]'"
        ) from error
    problems = load("v0").problems.values()
    return [
        _annotated(problem, one) for problem in problems for one in problem.fws_annotations.values()
    ]


def _annotated(problem: Any, one: Any) -> AnnotatedSolution:
    spans = [match.span() for match in re.finditer(r"[^\n]*\S[^\n]*", one.text)]
    touched = [
        i
        for i, (start, end) in enumerate(spans, 1)
        if one.start_idx is not None and start < one.end_idx and one.start_idx < end
    ]
    solution = "\n".join(step.text for step in problem.solution.steps)
    lines = tuple(one.text[start:end].strip() for start, end in spans)
    return AnnotatedSolution(
        problem.identifier, problem.text, problem.answer, solution, lines, frozenset(touched)
    )


def read_step(reply: str, lines: int) -> int | None:
    """The step that a reply names in its last line, 0 for none; None where that line says no such
    thing, or a step that is not there.
    """
    last = without_thinking(reply).strip().rpartition("\n")[2]
    found = LAST_LINE.fullmatch(last)
    if found is None:
        return None
    step = 0 if found[1].lower() == "none" else int(found[1])
    return step if step <= lines and (step or found[1].lower() == "none") else None


def critic_prompt(item: AnnotatedSolution, knows: str) -> str:
    """What the critic reads."""
    told = {"answer": "", "solution": ""} | (
        {knows: getattr(item, knows)} if knows != "nothing" else {}
    )
    return render("first_wrong_step", question=item.question, lines=list(item.lines), **told)


def localisation_accuracy(
    chat: Chat, items: Sequence[AnnotatedSolution], knows: str = "nothing"
) -> dict[str, Any]:
    """Accuracy of a critic with its interval over problems, by whether there is a mistake, and what
    was lost on the way.
    """
    replies = chat.answer(
        [[{"role": "user", "content": critic_prompt(item, knows)}] for item in items]
    )
    steps = [
        read_step(reply.text, len(item.lines)) if reply.status == "ok" else None
        for reply, item in zip(replies, items, strict=True)
    ]
    right = [
        step is not None and is_right(step, item) for step, item in zip(steps, items, strict=True)
    ]
    lost = Counter(f"{reply.status}: {reply.reason}" for reply in replies if reply.status != "ok")
    lost["unparsable"] = sum(
        step is None and reply.status == "ok" for step, reply in zip(steps, replies, strict=True)
    )
    usage = sum((reply.usage for reply in replies), Usage())
    tokens = usage.prompt_tokens + usage.completion_tokens
    return {
        **accuracy(right, items),
        "lost": {name: count for name, count in lost.items() if count},
        "critic_tokens": tokens,
        "usd": usage.usd,
    }


def is_right(step: int, item: AnnotatedSolution) -> bool:
    """True where the step touches the marked span, or both say that there is no mistake."""
    return step in item.wrong if step else not item.wrong


def baselines(items: Sequence[AnnotatedSolution]) -> dict[str, dict[str, Any]]:
    """Rules that read nothing; `random` takes one of the lines or none, each as likely, and its
    accuracy is exact.
    """
    return {
        "always step 1": accuracy([is_right(1, item) for item in items], items),
        "random": accuracy(
            [max(len(item.wrong), 1) / (len(item.lines) + 1) for item in items], items
        ),
        "always no error": accuracy([is_right(0, item) for item in items], items),
    }


def accuracy(right: Sequence[float], items: Sequence[AnnotatedSolution]) -> dict[str, Any]:
    """{"accuracy", "with_mistake", "without": {"mean", "ci95"}}: the two solutions of a problem are
    averaged first, since they are no two observations.
    """
    found = {}
    for name, mistake in (("accuracy", None), ("with_mistake", True), ("without_mistake", False)):
        of_problem: dict[str, list[float]] = {}
        for value, item in zip(right, items, strict=True):
            if mistake is None or bool(item.wrong) == mistake:
                of_problem.setdefault(item.problem, []).append(float(value))
        means = np.array([np.mean(values) for values in of_problem.values()])
        found[name] = as_json(crossed_interval(means[None, :])) if len(means) else None
    return found
