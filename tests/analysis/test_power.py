"""How much a comparison can show, before a run and in its verdict."""

import math
from dataclasses import replace

import numpy as np
import pytest
from arm_evaluations import compared, put

from critique_rl.analysis.power import advice, cannot_show, describe, planned_design, smallest_of
from critique_rl.analysis.verdict import verdict
from critique_rl.config.pipeline_file import parse_pipeline
from critique_rl.intervals import Design, Spread, crossed_interval, smallest_difference

PIPELINE = {"task": {"name": "lab/chain"}, "policy": {"model": "lab"}}


def share_that_shows(design: Design, runs: int = 800) -> float:
    """Share of simulated comparisons with the smallest difference whose interval leaves out 0."""
    spread = Spread()
    difference = smallest_difference(design)
    rng = np.random.default_rng(0)
    shown = 0
    for _ in range(runs):
        values_SP = np.full((design.seeds, design.problems), difference)
        if design.seeds > 1:
            # With one seed its own deviation is part of the difference that the interval covers.
            values_SP += rng.normal(0, spread.seeds, (design.seeds, 1))
        values_SP += rng.normal(0, spread.problems, (1, design.problems))
        noise = math.sqrt(2 * spread.rate * (1 - spread.rate) / design.samples)
        values_SP += rng.normal(0, noise, values_SP.shape)
        interval = crossed_interval(values_SP)
        shown += not interval.low <= 0 <= interval.high
    return shown / runs


@pytest.mark.parametrize(
    "design", [Design(200, 4, 3), Design(100, 4, 1), Design(20, 4, 2), Design(10, 16, 5)]
)
def test_the_smallest_difference_shows_about_four_times_in_five(design):
    # Few seeds give the interval fewer degrees of freedom than the expected mean squares have.
    assert 0.65 <= share_that_shows(design) <= 0.85


def test_more_problems_samples_and_seeds_show_less():
    design = Design(50, 4, 2)
    smallest = smallest_difference(design)
    for larger in (
        replace(design, problems=100),
        replace(design, samples=8),
        replace(design, seeds=3),
    ):
        assert smallest_difference(larger) < smallest
    assert smallest_difference(Design(1, 1, 1)) == math.inf


def test_pass_at_k_has_a_try_per_k_samples():
    assert smallest_of("pass@4/all", 50, 16, 2) == smallest_of("pass@1/all", 50, 4, 2)
    assert smallest_of("ece", 1, 16, 2) is None


def test_the_planned_design_counts_the_problems_of_the_primary_family():
    data = {**PIPELINE, "seeds": [0, 1], "primary": "pass@4/hard", "evaluation": {"samples": 8}}
    pipeline = parse_pipeline("p", data)
    families = ["easy"] * 30 + ["hard"] * 20
    assert planned_design(pipeline, families) == Design(20, 2, 2)
    assert planned_design(pipeline, ["easy"]) is None


def test_advice_names_a_design_that_can_show_the_difference_asked_for():
    pipeline = parse_pipeline("p", {**PIPELINE, "delta": 0.1, "seeds": [0, 1]})
    design = Design(100, 4, 2)
    words = advice(pipeline, design)
    assert words == "a difference of 0.10 (delta:) does not show; it would with 12 seeds"
    assert smallest_difference(replace(design, seeds=12)) <= 0.1
    assert smallest_difference(replace(design, seeds=8)) > 0.1
    assert describe(pipeline, design).startswith("2 seeds, 100 problems and 4 samples each show")
    assert advice(parse_pipeline("p", {**PIPELINE, "seeds": [0, 1]}), design) == ""


@pytest.mark.parametrize("delta", [0, -0.1, 1.5, True, "small"])
def test_a_delta_that_is_no_difference_is_refused(delta):
    with pytest.raises(ValueError, match="delta: got"):
        parse_pipeline("p", {**PIPELINE, "delta": delta})


def test_a_verdict_on_two_problems_says_that_it_cannot_show(tmp_path):
    put(tmp_path, "scalar", 0, {"a": 0, "b": 2})
    put(tmp_path, "critique", 0, {"a": 2, "b": 1})
    sentence = verdict(compared(tmp_path, seeds=[0]))
    assert "cannot show any difference over 1 seed and 2 problems (observed +0.12)" in sentence
    assert "[" not in sentence


def test_a_verdict_below_the_delta_names_what_could_show(tmp_path):
    problems = [f"p{i}" for i in range(40)]
    for seed in (0, 1):
        put(tmp_path, "scalar", seed, dict.fromkeys(problems, 2))
        gains = {name: 2 + i % 2 for i, name in enumerate(problems)}
        put(tmp_path, "critique", seed, gains)
    comparison = compared(tmp_path)
    pair = comparison.comparisons[0]
    assert cannot_show(pair, 0.2) == pair.smallest > 0.2
    sentence = verdict(replace(comparison, delta=0.2))
    assert "cannot show a difference of 0.20 over 2 seeds and 40 problems, only of" in sentence
    assert "(observed +0.12)" in sentence


def test_runs_that_vary_more_than_assumed_cannot_show_either(tmp_path):
    problems = [f"p{i}" for i in range(40)]
    for seed in range(3):
        put(tmp_path, "scalar", seed, dict.fromkeys(problems, 0))
        # One seed of three takes off.
        put(tmp_path, "critique", seed, dict.fromkeys(problems, 4 * (seed == 2)))
    comparison = compared(tmp_path, seeds=range(3))
    pair = comparison.comparisons[0]
    assert pair.smallest < 0.5
    assert cannot_show(pair, None) > 0.5
    assert "cannot show" in verdict(comparison)
