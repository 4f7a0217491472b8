"""Critique -> second attempt: which failed rollouts are refined, under which prompt, and which
candidates fill reserved slots.

Pure bookkeeping over lists; sampling and scoring are the rollout's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

from critique_rl.prompts import LONGEST_TEXT, render
from critique_rl.tasks.messages import replace_question
from critique_rl.types import Attempt, Critique, Verdict

_CRITIC = r"(?:critique|critic|feedback|review)"
_SAID = r"(?:noted|said|mentioned|pointed out|suggested|stated)"
_TRY = r"(?:solution|attempt|answer|response|mistake|error)"
MENTIONS = re.compile(
    rf"(?i)\b(?:as|like) (?:you|the {_CRITIC}) (?:\w+ly )?(?:have |has )?{_SAID}"
    r"|\b(?:the|your|this)(?: (?:above|given|provided))? (?:critique|critic|feedback|hint)\b"
    rf"|\b(?:my|your) (?:previous|earlier|first|original|prior) {_TRY}"
    # "The first solution is x = 2", "the original solution holds 20% acid": those with an article
    # are mathematics more often than not.
    rf"|\bthe (?:(?:previous|earlier|prior) {_TRY}|(?:first|original) (?:attempt|response))"
    r"|\byou(?:'re| are) right\b|\bI apologi[sz]e\b|\b(?:thank you|thanks) for\b"
)
"""How an answer speaks of a critique, or of an attempt before it."""


def select_failed(
    verdicts: Sequence[Verdict],
    group_size: int,
    when: str,
    limit: int,
    skipped: Collection[int] = (),
) -> list[int]:
    """Indices of the failed rollouts whose critique is asked for.

    Abstained and unscored rollouts are not failed.

    Args:
        verdicts: verdicts of rollouts, group by group.
        group_size: rollouts per group.
        when: "rollout_failed" (every failed rollout) or "group_failed" (only in groups where all
            failed).
        limit: critiques per group at most.
        skipped: indices of failed rollouts that nobody asks about.
    """
    selected = []
    for start in range(0, len(verdicts), group_size):
        group = range(start, start + group_size)
        failed = [i for i in group if verdicts[i].failed]
        if when == "rollout_failed" or len(failed) == group_size:
            due = [i for i in failed if i not in skipped]
            selected += due[:limit]
    return selected


def refine_prompt(
    prompt: Any, attempt: Attempt, critique: Critique, template: str, specials: Sequence[str] = ()
) -> Any:
    """The prompt of a refinement, in the format of `prompt`.

    Its last user message asks again, with the attempt and the critique. All other messages stay.

    Args:
        prompt: the prompt of the attempt.
        attempt: the failed answer.
        critique: the critic's words on it.
        template: name of the template.
        specials: special tokens of the policy's tokenizer. They are broken in the attempt and the
            critique, where they would end the turn.
    """
    return replace_question(
        prompt,
        lambda question: render(
            template, specials, question=question, attempt=attempt.text, critique=critique.text
        ),
    )


def mentions_critique(text: str) -> bool:
    """Whether an answer speaks of a critique that its reader cannot see ("as you noted").

    A policy that learns from such an answer would say so unasked. Of an answer of over
    `LONGEST_TEXT` characters the rest is not read.
    """
    return MENTIONS.search(text, 0, LONGEST_TEXT) is not None


def choose_candidates(
    verdicts: Sequence[Verdict], slots: int, draw: Callable[[int], int], select: str = "right_first"
) -> list[int]:
    """Indices of the candidates of one group that fill its reserved slots.

    Right ones come first in order, then others at random (Critique-GRPO, section 4.1).

    Args:
        verdicts: verdicts of the group's candidates.
        slots: reserved rows of the group.
        draw: `draw(n)` returns an integer in [0, n).
        select: "right_first", or "random" to draw from all of them (RLTF-SD).
    """
    right: list[int] = []
    if select == "right_first":
        right = [i for i, verdict in enumerate(verdicts) if verdict.outcome == "right"]
    others = []
    for i, verdict in enumerate(verdicts):
        # An unscored candidate has no reward: in a slot it would be a row without a verdict.
        is_scored = verdict.outcome != "unscored"
        if is_scored and i not in right:
            others.append(i)
    chosen = right[:slots]
    while others and len(chosen) < slots:
        chosen.append(others.pop(draw(len(others))))
    return chosen


def swap_right(
    chosen: Sequence[int], traces: Sequence[int], verdicts: Sequence[Verdict]
) -> tuple[list[int], list[int]]:
    """Put an expert's trace in the place of every chosen right refinement of one group.

    The control of refinements: rollouts, refinements, tokens, slots and the number of right rows
    stay those of an arm without traces, and the right row alone comes from elsewhere. A wrong
    refinement keeps its row.

    Args:
        chosen: places of the refinements that fill slots.
        traces: place of the group's trace, if it has one.
        verdicts: verdict of each place.

    Returns:
        Places that fill slots; then right refinements that no right trace could replace. Those
        train nothing: as refinements they would mix the two sources.
    """
    right_traces = [trace for trace in traces if verdicts[trace].outcome == "right"]
    filling: list[int] = []
    unmatched: list[int] = []
    for place in chosen:
        if verdicts[place].outcome != "right":
            filling.append(place)
        elif right_traces:
            filling += right_traces[:1]
        else:
            unmatched.append(place)
    return filling, unmatched
