"""Hashes: the split of a question, draws that a replay repeats, and checksums of files.

A split follows from the question alone. No two splits can share a question, whatever seed drew it.
Checksums are xxh3_128, faster than a disk: they tell damage, and are no proof against forgery.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import xxhash

BLOCK = 1 << 20
"""Bytes that are read at a time."""


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


def text_checksum(text: str) -> str:
    """The checksum of a text, in hex."""
    return xxhash.xxh3_128(text.encode("utf-8", "surrogatepass")).hexdigest()


def file_checksum(path: Path) -> str:
    """The checksum of a file's bytes, in hex. Raises OSError for a file that cannot be read."""
    checksum = xxhash.xxh3_128()
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        # No larger than needed: making it takes longer than reading a small file.
        block = memoryview(bytearray(max(1, min(size, BLOCK))))
        while count := file.readinto(block):
            checksum.update(block[:count])
    return checksum.hexdigest()
