"""What each turn of refinement asked for, rescued and cost, from metrics.jsonl.

The trainer logs `refine/turn/<i>/...` where `refine_turns` is over 1, and an arm of one turn has no
rows here.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

NAME = re.compile(r"refine/turn/(\d{1,4})/(\w+)")


@dataclass(frozen=True)
class TurnCounts:
    """The sums of one turn over all steps and seeds of an arm."""

    turn: int
    asked: int
    """Attempts that the critic was asked about."""
    refined: int
    rescued: int
    """Refinements that were right."""
    tokens: int
    """Tokens that the policy sampled for refinements."""
    prompt_tokens: int
    """Tokens of the prompts of refinements."""
    critic_tokens: int
    """Tokens that the critic wrote."""
    critic_prompt_tokens: int
    """Tokens that the critic read."""


def turn_counts(logged: Iterable[Mapping[str, Any]]) -> list[TurnCounts]:
    """The turns of one arm in order; [] where it had one turn only.

    Args:
        logged: rows of metrics.jsonl of all of the arm's runs, each step of a run once.
    """
    turns: dict[int, Counter[str]] = defaultdict(Counter)
    for row in logged:
        for name, value in row.items():
            match = NAME.fullmatch(name)
            if match is None or not isinstance(value, int | float):
                continue
            turn = int(match[1])
            counter = match[2]
            turns[turn][counter] += round(value)
    return [_turn_of(turn, turns[turn]) for turn in sorted(turns)]


def _turn_of(turn: int, counts: Counter[str]) -> TurnCounts:
    return TurnCounts(
        turn=turn,
        asked=counts["asked"],
        refined=counts["refined"],
        rescued=counts["rescued"],
        tokens=counts["tokens"],
        prompt_tokens=counts["prompt_tokens"],
        critic_tokens=counts["critic_tokens"],
        critic_prompt_tokens=counts["critic_prompt_tokens"],
    )
