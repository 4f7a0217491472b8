"""Words with a meaning for the rules of this folder."""

from __future__ import annotations


def vocabulary(text: str) -> tuple[str, ...]:
    """The words of a text, in their order."""
    return tuple(text.split())


MONTHS = vocabulary(
    "january february march april may june july august september october november december"
)
SHORT_MONTHS = vocabulary("jan feb mar apr jun jul aug sep sept oct nov dec")
WEEKDAYS = vocabulary(
    "monday tuesday wednesday thursday friday saturday sunday "
    "mon tue tues wed weds thu thur thurs fri sat sun"
)
