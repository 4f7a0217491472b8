"""Alarms of collapse on made-up series: once each, with the remedy, and never on a run that is
well.
"""

from __future__ import annotations

import logging
from collections import Counter
from types import SimpleNamespace

import pytest

from critique_rl.tasks.judging import MOST_REASONS, count_lost
from critique_rl.trainer.alarms import RULES, WINDOW, CollapseAlarm, alarm
from critique_rl.types import Verdict

RULE = {rule.metric: rule for rule in RULES}
BAD = {
    "entropy": [1.0] * 10 + [3.5] * 10,
    "refine/logps": [-1.0] * 10 + [-2.5] * 10,
    "completions/mean_length": [100.0] * 10 + [20.0] * 10,
}
REMEDIES = {
    "entropy": "lower learning_rate",
    "refine/logps": "use refine_ratio importance",
    "completions/mean_length": "mask_truncated_completions",
}


def logged(metric: str, values) -> tuple[CollapseAlarm, list[dict]]:
    """The callback fed with a log a step, and what it made of them."""
    callback = CollapseAlarm()
    rows = []
    for step, value in enumerate(values, start=1):
        rows.append({"loss": 0.1, metric: value})
        callback.on_log(None, SimpleNamespace(global_step=step), None, logs=rows[-1])
    return callback, rows


@pytest.mark.parametrize(
    ("metric", "values", "factor"),
    [
        ("entropy", BAD["entropy"], 3.5),
        ("entropy", [1.0] * 10 + [0.05] * 10, 0.05),
        ("refine/logps", BAD["refine/logps"], 2.5),
        ("completions/mean_length", BAD["completions/mean_length"], 0.2),
        ("completions/mean_length", [100.0] * 10 + [250.0] * 10, 2.5),
        ("entropy", [0.4] * 10 + [1.6] * 10, 4.0),
        ("refine/logps", [-0.5] * 10 + [-1.5] * 10, 3.0),
        # the first ten have mean 1, the last ten (1 + 2 * 2 + 7 * 5) / 10 = 4: what is between is
        # not looked at
        ("entropy", [1.0] * 10 + [9.0] * 5 + [1.0] + [2.0] * 2 + [5.0] * 7, 4.0),
    ],
)
def test_the_factor_is_the_last_mean_over_the_first(metric, values, factor) -> None:
    assert alarm(RULE[metric], values) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        ("entropy", [1.0] * 40),
        ("entropy", [0.4] * 10 + [0.8] * 10),
        ("completions/mean_length", [100.0] * 10 + [150.0] * 10),
        ("entropy", [1.0 - 0.01 * i for i in range(60)]),  # the last mean is .455
        ("entropy", [1.0] * 10 + [9.0] * 9),  # one value too few
        ("entropy", [0.001] * 10 + [0.02] * 10),  # twenty times nothing is nothing
        ("entropy", [0.0] * 10 + [1.0] * 10),  # no factor of 0
        (
            "entropy",
            [1.0, 50.0] + [1.0] * 8 + [1.0] * 30,
        ),  # a spike at the start makes the first mean 5.9: the factor is .17
        ("entropy", [1.0] * 30 + [9.0] * 2),  # the last mean is 2.6
        ("refine/logps", [-1.0 - 0.02 * i for i in range(40)]),  # -1.09 to -1.69
        (
            "refine/logps",
            [-2.0] * 10 + [-0.5] * 10,
        ),  # nearer to what the policy would write is well
        ("completions/mean_length", [100.0 + i for i in range(60)]),
    ],
)
def test_flat_slow_short_and_tiny_series_raise_none(metric, values) -> None:
    assert all(alarm(RULE[metric], values[:n]) is None for n in range(len(values) + 1))


@pytest.mark.parametrize("metric", BAD)
def test_each_alarm_is_given_once_with_its_remedy(metric, caplog) -> None:
    with caplog.at_level(logging.WARNING, logger="critique_rl.trainer.alarms"):
        _, rows = logged(metric, BAD[metric] + BAD[metric][-1:] * 30)
    given = [i for i, row in enumerate(rows) if f"alarm/{metric}" in row]
    assert len(given) == len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert message.startswith(f"step {given[0] + 1}: {metric} is ")
    assert RULE[metric].remedy in message
    assert REMEDIES[metric] in message
    # it comes before the window is full of bad values, and not before there are two windows
    assert 2 * WINDOW - 1 <= given[0] < 2 * WINDOW + 5


def test_the_alarm_of_one_metric_leaves_the_others_on(caplog) -> None:
    callback = CollapseAlarm()
    for step in range(40):
        bad = step >= 10
        logs = {
            "entropy": 4.0 if bad else 1.0,
            "completions/mean_length": 10.0 if step >= 25 else 100.0,
        }
        callback.on_log(None, SimpleNamespace(global_step=step), None, logs=logs)
    assert [record.getMessage().split(" ")[2] for record in caplog.records] == [
        "entropy",
        "completions/mean_length",
    ]


def test_other_logs_and_values_that_are_missing_are_passed_over() -> None:
    callback = CollapseAlarm()
    for logs in (None, {}, {"train_runtime": 3.0}, {"entropy": None}):
        callback.on_log(None, SimpleNamespace(global_step=1), None, logs=logs)
    assert callback.values["entropy"] == []


def test_a_remedy_names_options_that_exist() -> None:
    from dataclasses import fields

    from critique_rl import CritiqueGRPOConfig

    known = {field.name for field in fields(CritiqueGRPOConfig)}
    named = {word.strip(",;.()") for rule in RULES for word in rule.remedy.split() if "_" in word}
    assert named <= known | {"dr_grpo"}
    assert len(named) >= 6


def lost(**counts):
    """Counters of a generation of 100 answers."""
    return {f"verification/{name}": count for name, count in {"judged": 100, **counts}.items()}


def test_a_share_of_lost_answers_over_a_twentieth_is_named_once(caplog) -> None:
    callback = CollapseAlarm()
    assert callback.check_lost(lost(timeout=5), 1) == {}
    # 5 and 9 of 200: 7 %.
    assert callback.check_lost(lost(timeout=9), 2) == {"alarm/verification/timeout": 0.07}
    assert "14 of 200 answers took the verifier longer than its deadline twice" in caplog.text
    crashed = lost(timeout=9, **{"unscored/crash": 20, "unscored/memory": 1})
    assert callback.check_lost(crashed, 3) == {"alarm/verification/unscored": 0.07}
    assert "21 of 300 answers could not be judged" in caplog.text
    assert "crash (20), memory (1)" in caplog.text
    again = CollapseAlarm()
    again.load_state_dict(callback.state_dict())
    assert again.check_lost(crashed, 4) == {}


def test_what_was_lost_long_ago_gives_no_alarm() -> None:
    callback = CollapseAlarm()
    callback.check_lost(lost(timeout=5), 1)
    for step in range(2, 2 + WINDOW):
        callback.check_lost(lost(), step)
    assert callback.check_lost(lost(timeout=50), 20) == {}
    assert callback.check_lost(lost(timeout=1), 21) == {"alarm/verification/timeout": 0.051}


def test_a_run_has_few_metrics_however_many_reasons_its_steps_have() -> None:
    alarm = CollapseAlarm()
    names = set()
    for step in range(100):
        verdicts = [Verdict("unscored", reason=f"{step} {i}") for i in range(100)]
        verdicts.append(Verdict("unscored", reason="crash"))
        counts = Counter[str]()
        for name, count in count_lost(verdicts).items():
            counts[f"verification/{name}"] = count
            counts[f"outcome/{name}"] = count
            counts[f"critique/failed/{name.replace('/', ' ')}"] = count
            counts[f"critique/{name.replace('/', ' ')}"] = count
        bounded = alarm.names.bounded(counts)
        assert sum(bounded.values()) == sum(counts.values())
        assert bounded["verification/unscored/crash"] == 1
        names |= bounded.keys()
        again = CollapseAlarm()
        again.load_state_dict(alarm.state_dict())
        alarm = again
    assert len(names) <= 4 * (MOST_REASONS + 4)
