"""Critique -> second attempt: which failed rollouts are refined, the prompt each refinement is
sampled from, and which candidates fill reserved slots.

Pure bookkeeping over lists; sampling and scoring are the trainer's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from critique_rl.prompts import render
from critique_rl.types import Attempt, Critique, Verdict

MENTIONS = re.compile(
    r"(?i)\b(?:as|like) (?:you|the (?:critique|critic|feedback|review)) (?:\w+ly )?(?:have |has )?(?:noted|said|mentioned|pointed out|suggested|stated)"
    r"|\b(?:the|your|this)(?: (?:above|given|provided))? (?:critique|critic|feedback|hint)\b"
    r"|\b(?:my|your) (?:previous|earlier|first|original|prior) (?:solution|attempt|answer|response|mistake|error)"
    # "The first solution is x = 2", "the original solution holds 20% acid": those with an article
    # are mathematics more often than not.
    r"|\bthe (?:(?:previous|earlier|prior) (?:solution|attempt|answer|response|mistake|error)|(?:first|original) (?:attempt|response))"
    r"|\byou(?:'re| are) right\b|\bI apologi[sz]e\b|\b(?:thank you|thanks) for\b"
)


def due(verdicts: Sequence[Verdict], group_size: int, when: str, most: int) -> list[int]:
    """Indices of rollouts whose critique is asked for, at most `most` a group of `group_size`
    rollouts.

    `when`: "rollout_failed" (every failed rollout) or "group_failed" (only in groups where all
    failed). Abstained and unscored rollouts are not failed.
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
    return next(
        (str(message["content"]) for message in reversed(prompt) if message["role"] == "user"), ""
    )


def refine_prompt(
    prompt: Any, attempt: Attempt, critique: Critique, template: str, specials: Sequence[str] = ()
) -> Any:
    """The prompt of a refinement in the format of `prompt`: its last user message asks again, with
    the attempt and the critique.

    `specials` are the special tokens of the policy's tokenizer: written out in an attempt, they
    would end the turn.
    """
    return in_place_of_question(
        prompt,
        lambda question: render(
            template, specials, question=question, attempt=attempt.text, critique=critique.text
        ),
    )


def in_place_of_question(prompt: Any, text_of: Callable[[str], str]) -> Any:
    """`prompt` with its question (a plain prompt itself, a conversation's last user message)
    replaced by `text_of(question)`.
    """
    text = text_of(question_of(prompt))
    return text if isinstance(prompt, str) else [*prompt[:-1], {"role": "user", "content": text}]


def mentions_critique(text: str) -> bool:
    """True where an answer speaks of a critique its reader cannot see ("as you noted", "in my
    previous attempt"): learnt, it would be said unasked.
    """
    return MENTIONS.search(text) is not None


def choose(
    verdicts: Sequence[Verdict], slots: int, draw: Callable[[int], int], select: str = "right_first"
) -> list[int]:
    """Which candidates of one group fill its reserved slots: right ones first in order, then others
    at random (Critique-GRPO, section 4.1).

    `select` "random" draws from all of them (RLTF-SD). `draw(n)` gives a whole number in [0, n).
    """
    right = [
        i
        for i, verdict in enumerate(verdicts)
        if verdict.outcome == "right" and select == "right_first"
    ]
    # An unscored candidate has no reward: in a slot it would be a row without a verdict.
    others = [
        i for i, verdict in enumerate(verdicts) if verdict.outcome != "unscored" and i not in right
    ]
    chosen = right[:slots]
    while others and len(chosen) < slots:
        chosen.append(others.pop(draw(len(others))))
    return chosen
