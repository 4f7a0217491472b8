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
    digest = hashlib.sha256(question.encode()).hexdigest()
    bucket = int(digest, 16) % 100
    return next(split for split, (low, high) in bounds.items() if low <= bucket < high)


def uniform(key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    # Python's own `hash` of a text changes from process to process.
    digest = hashlib.sha256(key.encode()).digest()
    # Seven bytes fill the 53 bits of a float.
    return int.from_bytes(digest[:7], "big") / 2**56
