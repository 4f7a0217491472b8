"""Critique -> second attempt: which failed rollouts are refined, the prompt each refinement is sampled from, and which candidates fill reserved slots.

Pure bookkeeping over lists; sampling and scoring are the trainer's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from critique_rl.prompts import render
from critique_rl.types import Attempt, Critique, Verdict


def due(verdicts: Sequence[Verdict], group_size: int, when: str, most: int) -> list[int]:
    """Indices of rollouts whose critique is asked for, at most `most` a group of `group_size` rollouts.

    `when`: "rollout_failed" (every failed rollout) or "group_failed" (only in groups where all failed). Abstained and unscored rollouts are not failed.
    """
    chosen = []
    for start in range(0, len(verdicts), group_size):
        failed = [i for i in range(start, start + group_size) if verdicts[i].failed]
        if when == "rollout_failed" or len(failed) == group_size:
            chosen += failed[:most]
    return chosen


def question_of(prompt: Any) -> str:
    """What was asked: a plain prompt itself, or the last user message of a conversation."""
    if isinstance(prompt, str):
        return prompt
    return next((str(message["content"]) for message in reversed(prompt) if message["role"] == "user"), "")


def refine_prompt(prompt: Any, attempt: Attempt, critique: Critique, template: str) -> Any:
    """The prompt of a refinement in the format of `prompt`: its last user message asks again, with the attempt and the critique."""
    text = render(template, question=question_of(prompt), attempt=attempt.text, critique=critique.text)
    return text if isinstance(prompt, str) else [*prompt[:-1], {"role": "user", "content": text}]


def choose(verdicts: Sequence[Verdict], slots: int, draw: Callable[[int], int]) -> list[int]:
    """Which candidates of one group fill its reserved slots: right ones first in order, then others at random (Critique-GRPO, section 4.1).

    `draw(n)` gives a whole number in [0, n).
    """
    right = [i for i, verdict in enumerate(verdicts) if verdict.outcome == "right"]
    # An unscored candidate has no reward: in a slot it would be a row without a verdict.
    others = [i for i, verdict in enumerate(verdicts) if verdict.outcome not in ("right", "unscored")]
    chosen = right[:slots]
    while others and len(chosen) < slots:
        chosen.append(others.pop(draw(len(others))))
    return chosen
