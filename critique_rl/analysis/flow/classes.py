"""The disjoint classes of completions, in the order in which they are tried."""

from __future__ import annotations

RIGHT = "right"
BASE_WRONG = "base_wrong"
NEAR_MISS = "near_miss"
OTHER_WRONG = "other_wrong"
REST = "rest"
CLASSES = (RIGHT, BASE_WRONG, NEAR_MISS, OTHER_WRONG, REST)
"""A completion belongs to the first that fits it."""
WORDS = {
    RIGHT: "right",
    BASE_WRONG: "the base's own wrong answers",
    NEAR_MISS: "near misses",
    OTHER_WRONG: "other wrong answers of the task",
    REST: "the rest",
}
"""Class -> its name on pages."""
