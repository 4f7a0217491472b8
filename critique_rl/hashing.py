"""Chance by hash: the split of a question, and draws that a replay repeats.

A split follows from the question alone. No two splits can share a question, whatever seed drew it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def split_of(question: str, bounds: Mapping[str, tuple[int, int]]) -> str:
    """The split of a question.

    Args:
        question: the question's text.
        bounds: split -> its buckets [low, high) of 0..99, such as {"train": (0, 80), "test": (80,
            100)}; together they cover all buckets.
    """
    bucket = int(hashlib.sha256(question.encode()).hexdigest(), 16) % 100
    return next(name for name, (low, high) in bounds.items() if low <= bucket < high)


def uniform(key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    # Seven bytes fill a float's 53 bits. Python's own `hash` changes from process to process.
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big") / 2**56
