"""Verdict -> reward, as TRL reward functions. Left out for now: calibration and truthfulness rewards.

A reward of None means "could not be judged": TRL leaves such a row out of the baseline and trains nothing on it. It is never a 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from critique_rl.types import Verdict, Verifier

VALUES = {"right": 1.0, "wrong": 0.0, "unreadable": 0.0, "abstained": 0.0, "unscored": None}


def text_of(completion: Any) -> str:
    """The text of a completion in either of TRL's formats: a string, or a list of messages."""
    return completion if isinstance(completion, str) else "".join(str(message["content"]) for message in completion)


class VerifierReward:
    """Binary reward from a verifier: 1 right, 0 wrong or unreadable, None unscored. `verdicts` holds those of the last call, in row order."""

    __name__ = "correct"

    def __init__(self, verifier: Verifier):
        self.verifier = verifier
        self.verdicts: list[Verdict] = []

    def __call__(self, completions: list[Any], **columns: Any) -> list[float | None]:
        rows = [{key: values[i] for key, values in columns.items() if isinstance(values, list)} for i in range(len(completions))]
        self.verdicts = [self.verifier(text_of(completion), row) for completion, row in zip(completions, rows, strict=True)]
        return [VALUES[verdict.outcome] for verdict in self.verdicts]


def group_wise(function: Callable) -> Callable:
    """Mark a reward function that compares the members of a group: with a critic it is called once, on the full group, never on part of one."""
    function.group_wise = True
    return function
