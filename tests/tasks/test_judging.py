"""Reasons of verdicts as names of metrics: few, short and safe, whatever a user's function says."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from critique_rl.tasks.judging import (
    LONGEST_NAME,
    MOST_REASONS,
    group_rare,
    reason_name,
    unscored_reasons,
)
from critique_rl.types import Verdict

SAFE = re.compile(r"\w|\w[\w .-]*\w")


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.text() | st.sampled_from(["..", "/", "", "\x1b[31m", "a/b: c", "\ud800", " " * 10**6]))
def test_a_reason_is_a_safe_name(reason) -> None:
    name = reason_name(reason)
    assert SAFE.fullmatch(name)
    assert len(name) <= LONGEST_NAME
    assert reason_name(name) == name


def test_reasons_that_mean_something_keep_their_names() -> None:
    for reason in ("crash", "step deadline", "error KeyError", "no gold answer"):
        assert reason_name(f"{reason}: row 7") == reason


def test_a_hundred_thousand_reasons_are_few_counters() -> None:
    verdicts = [Verdict("unscored", reason=f"because of {i}") for i in range(100_000)]
    verdicts += [Verdict("unscored", reason="crash")] * 7
    reasons = unscored_reasons(verdicts)
    assert len(reasons) == MOST_REASONS + 1
    assert reasons["crash"] == 7
    assert sum(reasons.values()) == len(verdicts)
    assert group_rare({"a": 1, "b": 3, "c": 2}, most=1) == {"b": 3, "other": 3}
