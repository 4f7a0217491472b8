"""The plateau detector on synthetic series (in short; tests/benchmarks/plateau_series.py measures
1,000 of each), and as a callback of a real GRPO run.
"""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.plateau_series import CURVES, RULE, SAMPLES, measure, outcome, series
from tiny_trainers import dataset, trainer_of
from transformers import TrainerState
from trl import GRPOConfig, GRPOTrainer

from critique_rl.trainer.plateau import (
    PlateauCallback,
    PlateauDetector,
    PlateauRule,
    gain_per_window,
)


@pytest.mark.parametrize("deviation", [0.0, 0.02])
@pytest.mark.parametrize(
    "name",
    [
        "rises by 1 x min_gain a window",
        "rises by 2 x min_gain a window",
        "saturates, time constant 4 looks",
    ],
)
def test_few_false_alarms_on_what_rises(name, deviation) -> None:
    # 60 series at a true rate of .05 show more than 8 once in a hundred tries; the seed is fixed.
    assert measure(name, deviation, 60)["false alarms"] <= 8 / 60


@pytest.mark.parametrize("name", ["flat at .3", "flat at .5", "all zero"])
def test_flat_series_are_stuck_within_three_windows(name) -> None:
    assert measure(name, 0.0, 40)["stuck within three windows"] >= 0.95


def test_a_late_take_off_is_reported_and_the_plateau_before_it_stays_on_record() -> None:
    detectors = [
        outcome(series(np.random.default_rng(i), CURVES["flat at .05, takes off at look 16"], 0.0))
        for i in range(20)
    ]
    assert all(detector.status == "took_off" for detector in detectors)
    assert all(detector.stuck_at < detector.took_off_at <= 20 for detector in detectors)


def test_what_is_solved_is_not_stuck() -> None:
    assert outcome(series(np.random.default_rng(0), CURVES["solved"], 0.0)).status == "solved"


def test_the_gain_is_the_slope_times_the_window_and_problems_cancel() -> None:
    rates = np.add.outer(0.01 * np.arange(13), np.linspace(0, 0.8, 50))
    gain = gain_per_window(rates, PlateauRule(), samples=100)
    assert gain.gain == pytest.approx(0.06)
    assert gain.error < 0.02, "problems that all rise alike have no spread, whatever their levels"


def test_errors_of_the_gain_match_the_spread_over_repetitions() -> None:
    rng = np.random.default_rng(0)
    gains = [
        gain_per_window(series(rng, CURVES["flat at .3"][:13], 0.0), RULE, SAMPLES)
        for _ in range(200)
    ]
    spread = np.std([gain.gain for gain in gains])
    # Common noise is never estimated as less than none, so that errors are too large on average
    # where there is none; never too small.
    assert 0.95 * spread <= np.sqrt(np.mean([gain.error**2 for gain in gains])) <= 1.5 * spread


def test_a_continued_detector_says_the_same() -> None:
    rates = series(np.random.default_rng(1), CURVES["flat at .3"], 0.02)
    uninterrupted, first, second = PlateauDetector(), PlateauDetector(), PlateauDetector()
    for i, look in enumerate(rates):
        uninterrupted.look(look, SAMPLES)
        detector = first if i < 9 else second
        detector.look(look, SAMPLES)
        if i == 8:
            second.load_state_dict(first.state_dict())
    assert second.state_dict() == uninterrupted.state_dict()


@pytest.mark.parametrize(
    ("looks", "message"),
    [([[0.5, 0.5], [0.5]], "the test is paired"), ([[0.5, float("nan")]], "not finite")],
)
def test_looks_that_cannot_be_paired_are_refused(looks, message) -> None:
    detector = PlateauDetector()
    with pytest.raises(ValueError, match=message):
        for look in looks:
            detector.look(look)


@pytest.mark.parametrize(
    "options", [{"window": 1}, {"looks": 12}, {"min_gain": 0}, {"alpha": 1}, {"solved": 7}]
)
def test_a_rule_that_cannot_work_is_refused(options) -> None:
    with pytest.raises(ValueError, match="plateau: got"):
        PlateauRule(**options)


def test_the_callback_watches_a_stock_grpo_run(tiny_policy, tmp_path) -> None:
    settings = {
        "max_steps": 6,
        "learning_rate": 0.0,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "num_generations_eval": 4,
        "per_device_eval_batch_size": 8,
    }

    def never(completions, **kwargs):
        return [0.0] * len(completions)

    alarms = []
    callback = PlateauCallback(
        "eval_reward", 16, PlateauRule(window=2, looks=6, min_gain=0.2), alarms.append
    )
    data = {"eval_dataset": dataset().select(range(4))}
    trainer = trainer_of(
        GRPOTrainer,
        GRPOConfig,
        tiny_policy,
        tmp_path,
        never,
        settings=settings,
        callbacks=[callback],
        **data,
    )
    trainer.train()
    assert len(callback.detector.series) == 6
    assert alarms == [5], "the first look after two windows"


def test_a_resumed_run_looks_again_at_what_its_log_holds_and_does_not_call_twice() -> None:
    alarms = []
    state = TrainerState(
        log_history=[{"eval_reward": 0.0, "step": step} for step in range(5)] + [{"loss": 1.0}]
    )
    callback = PlateauCallback(
        "eval_reward", 16, PlateauRule(window=2, looks=6, min_gain=0.2), alarms.append
    )
    callback.on_train_begin(None, state, None)
    assert (len(callback.detector.series), callback.detector.status, alarms) == (5, "stuck", [])
    callback.on_evaluate(None, state, None, metrics={"eval_reward": 0.0})
    assert (len(callback.detector.series), alarms) == (6, [])


def test_values_that_are_no_rate_are_left_out_with_a_warning() -> None:
    callback = PlateauCallback("eval_rewrad", 16)
    state = TrainerState()
    callback.on_evaluate(None, state, None, metrics={"eval_reward": 0.5})
    with pytest.warns(UserWarning, match="did you mean 'eval_reward'"):
        callback.on_train_end(None, state, None)
    callback = PlateauCallback("eval_reward", 16)
    for value in (float("nan"), 37.0, -3.0):
        with pytest.warns(UserWarning, match="expected a rate"):
            callback.on_evaluate(None, state, None, metrics={"eval_reward": value})
    assert callback.detector.series == []
