"""A row of a task: one problem with its columns, and the splits that rows belong to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]
"""Columns prompt (messages, or a text), question, answer, family and id; in the lab also solution.
Every column reaches reward functions, verifier and critic.
"""
SPLITS = {"train": (0, 80), "validation": (80, 90), "test": (90, 100)}
"""Split -> its buckets of 100 (`hashing.split_of`), for problems that come without splits."""

TRL_ARGUMENTS = (
    "prompts",
    "completion",
    "completions",
    "completion_ids",
    "trainer_state",
    "log_extra",
    "log_metric",
    "environments",
)
"""TRL's arguments of a reward function beside the row's columns: no column may have these names."""
