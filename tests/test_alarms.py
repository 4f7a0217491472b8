"""Alarms: each speaks once, with its remedy, and stays quiet on runs that are well."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from critique_rl.alarms import RULES, CollapseAlarm, alarm

RULE = {rule.metric: rule for rule in RULES}
STEADY, DOUBLE = [0.4] * 10, [0.8] * 10


@pytest.mark.parametrize(
    ("metric", "series", "factor"),
    [
        ("entropy", [0.4] * 10 + [1.6] * 10, 4.0),
        ("entropy", [0.4] * 10 + [0.02] * 10, 0.05),
        ("entropy", STEADY + DOUBLE, None),
        ("entropy", [0.004] * 10 + [0.04] * 10, None),  # ten times next to nothing is next to nothing
        ("entropy", [0.4] * 19, None),  # the second window is not full
        ("refine/logps", [-0.5] * 10 + [-1.5] * 10, 3.0),
        ("refine/logps", [-0.5] * 10 + [-0.01] * 10, None),  # refinements the policy would now write itself are what is wanted
        ("completions/mean_length", [100.0] * 10 + [20.0] * 10, 0.2),
        ("completions/mean_length", [100.0] * 10 + [150.0] * 10, None),
    ],
)
def test_an_alarm_is_the_factor_between_the_first_and_the_last_ten_values(metric, series, factor) -> None:
    assert alarm(RULE[metric], series) == (factor if factor is None else pytest.approx(factor))


def test_the_callback_says_it_once_with_the_remedy_and_logs_the_factor(caplog) -> None:
    watch, state = CollapseAlarm(), SimpleNamespace(global_step=7)
    rows = [{"entropy": value} for value in [0.4] * 10 + [4.0] * 15]
    with caplog.at_level(logging.WARNING):
        for row in rows:
            watch.on_log(None, state, None, logs=row)
    assert [record.getMessage().count("lower learning_rate") for record in caplog.records] == [1]
    assert sum("alarm/entropy" in row for row in rows) == 1
    watch.on_log(None, state, None, logs=None)
    watch.on_log(None, state, None, logs={"train_runtime": 1.0})
