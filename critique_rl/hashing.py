"""Chance by hash: which split a question belongs to, so that no two splits share one whatever the
seed that drew it, and draws that a replay repeats.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def split_of(question: str, bounds: Mapping[str, tuple[int, int]]) -> str:
    """The split of a question, where `bounds` shares out the buckets 0..99: {"train": (0, 80),
    "test": (80, 100)}.
    """
    bucket = int(hashlib.sha256(question.encode()).hexdigest(), 16) % 100
    return next(name for name, (low, high) in bounds.items() if low <= bucket < high)


def uniform(key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big") / 2**56
