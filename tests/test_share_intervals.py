"""Intervals of shares: oracles, hand-worked values, coverage, and what cannot be said."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

from critique_rl.intervals import (
    Interval,
    crossed_interval,
    joint_level,
    seeds_to_decide,
    share_contrast_interval,
    share_interval,
)
from critique_rl.intervals.seeds import excluded_chance, split_seeds
from critique_rl.intervals.shares import binomial_interval


def test_the_binomial_interval_is_scipys_exact_one() -> None:
    for right, number in ((0, 7), (1, 30), (15, 30), (30, 30)):
        exact = stats.binomtest(right, number).proportion_ci(method="exact")
        assert binomial_interval(right, number) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_nothing_right_and_everything_right_have_a_width_by_the_number_of_problems() -> None:
    # 50 problems: 1 - .025^(1/50) = .0711, however many seeds and samples there are
    upper = 1 - 0.025 ** (1 / 50)
    nothing = share_interval(np.zeros((5, 50)), tries=16)
    assert (nothing.low, nothing.high) == (0.0, pytest.approx(upper))
    everything = share_interval(np.ones((4, 50)), tries=16)
    assert (everything.low, everything.high) == (pytest.approx(1 - upper), 1.0)
    both = share_contrast_interval((1, -1), [np.zeros((5, 50)), np.zeros((5, 50))])
    assert (both.low, both.high) == (pytest.approx(-upper), pytest.approx(upper))


def test_many_problems_of_each_kind_have_korn_and_graubards_interval() -> None:
    rng = np.random.default_rng(0)
    chance_P = rng.beta(2, 2, 400)
    values_SP = rng.binomial(8, chance_P, (4, 400)) / 8
    mean = values_SP.mean()
    half = crossed_interval(values_SP)
    # The width of the t interval stands for mean (1 - mean) / (half / z)^2 answers.
    number = mean * (1 - mean) / ((half.high - mean) / stats.norm.ppf(0.975)) ** 2
    exact = [stats.beta.ppf(0.025, mean * number, number - mean * number + 1)]
    exact.append(stats.beta.ppf(0.975, mean * number + 1, number - mean * number))
    interval = share_interval(values_SP, tries=8)
    # Five of 400 problems more or less: the pseudo-problems add next to nothing.
    assert (interval.low, interval.high) == pytest.approx(exact, abs=2e-4)


def test_one_seed_covers_problems_one_problem_seeds_and_one_value_nothing() -> None:
    assert math.isnan(share_interval([[0.5]]).low)
    assert math.isnan(share_contrast_interval((1, -1), [[[0.5]], [[0.1]]]).low)
    for values in ([[0.0, 0.5, 1.0, 0.5]], [[0.0], [0.5], [1.0], [0.5]]):
        interval = share_interval(values)
        assert 0 < interval.low < interval.mean < interval.high < 1


def test_a_contrast_stays_inside_its_range_and_a_pair_is_less_wide_than_two_arms() -> None:
    rng = np.random.default_rng(1)
    chance_P = rng.beta(1, 1, 80)
    arms = [rng.binomial(8, chance_P, (3, 80)) / 8 for _ in range(2)]
    pair = share_contrast_interval((1, -1), arms, tries=8)
    alone = [share_interval(arm, tries=8) for arm in arms]
    widths = [interval.high - interval.low for interval in alone]
    assert pair.high - pair.low < 0.7 * math.hypot(*widths)
    extreme = share_contrast_interval((1, -1), [np.ones((3, 4)), np.zeros((3, 4))])
    assert extreme.high == 1.0
    assert -1 < extreme.low < 1


@pytest.mark.parametrize("values", [[], [[0.5, 1.5]], [[-0.5, 0.5]], [[math.nan, 0.5]]])
def test_what_is_no_share_is_a_bug_of_the_caller(values) -> None:
    with pytest.raises(AssertionError):
        share_interval(values)


@pytest.mark.parametrize(("rate", "concentration"), [(0.001, 0.5), (0.01, 2.0), (0.999, 2.0)])
def test_rare_answers_are_covered_where_a_t_interval_is_not(rate, concentration) -> None:
    """More cases: tests/benchmarks/interval_coverage.py."""
    rng = np.random.default_rng(2)
    draws = 150
    holds = {"t": 0, "share": 0}
    for _ in range(draws):
        chance_P = rng.beta(rate * concentration, (1 - rate) * concentration, 60)
        values_SP = rng.binomial(8, chance_P, (5, 60)) / 8
        for name, interval in (
            ("t", crossed_interval(values_SP)),
            ("share", share_interval(values_SP, tries=8)),
        ):
            holds[name] += interval.low <= rate <= interval.high
    assert holds["share"] >= 0.93 * draws
    assert holds["t"] < 0.8 * draws


def test_three_seeds_on_many_problems_hold_the_truth() -> None:
    rng = np.random.default_rng(4)
    draws = 1200
    centre = -0.95
    everywhere = centre + np.sqrt(1 + 0.3**2) * rng.normal(size=400_000)
    truth = special.expit(everywhere).mean()
    held = 0
    for _ in range(draws):
        logits_SP = centre + rng.normal(size=300) + 0.3 * rng.normal(size=(3, 1))
        values_SP = rng.binomial(8, special.expit(logits_SP)) / 8
        interval = share_interval(values_SP, 8)
        held += interval.low <= truth <= interval.high
    assert held >= 0.93 * draws


def test_seeds_that_took_off_are_told_from_those_that_did_not() -> None:
    levels = [0.0, 0.75, 0.05, 0.8, 0.0]
    level = Interval(0.775, 0.6, 0.9)
    split = split_seeds(levels, 0.02, level)
    assert (split.took_off, split.collapsed) == (2, 0)
    assert (split.median, split.among) == (0.05, level)
    exact = stats.binomtest(2, 5).proportion_ci(method="exact")
    assert split.share == pytest.approx((exact.low, exact.high), abs=1e-9)
    one = split_seeds(levels[:3], 0.02, level)
    assert (one.took_off, one.among.mean) == (1, 0.775)
    # One seed says nothing of other seeds.
    assert math.isnan(one.among.low)
    none = split_seeds([0.0, 0.05, 0.1], 0.02, None)
    assert (none.took_off, none.among) == (0, None)
    fallen = split_seeds(levels, 0.88, None, Interval(0.8, 0.7, 0.9))
    assert (fallen.took_off, fallen.collapsed) == (0, 4)
    exact = stats.binomtest(4, 5).proportion_ci(method="exact")
    assert fallen.collapse_share == pytest.approx((exact.low, exact.high), abs=1e-9)
    # The one that stayed has a level, and says nothing of other seeds.
    assert fallen.kept.mean == 0.8
    assert math.isnan(fallen.kept.low)
    # (1 - c)^5 = .05
    assert excluded_chance(5) == pytest.approx(1 - 0.05**0.2)


def test_intervals_that_hold_together_are_as_wide_as_studentised_ranges_ask() -> None:
    rng = np.random.default_rng(3)
    # Four arms that differ by seeds alone, so that the least degrees of freedom are 19.
    arms = rng.normal(size=(4, 20, 1)) + 0.001 * rng.normal(size=(4, 20, 50))
    pairs = []
    for i in range(4):
        for j in range(i):
            pairs.append(arms[i] - arms[j])
    level = joint_level(np.stack(pairs))
    # Paired differences of four independent arms: nearly Tukey's, with 19 degrees of freedom each.
    tukey = stats.studentized_range.ppf(0.95, 4, 19) / math.sqrt(2)
    assert stats.t.ppf(0.5 + level / 2, 19) == pytest.approx(tukey, rel=0.06)
    assert joint_level(np.stack(pairs[:1])) == 0.95


def test_the_seeds_that_would_decide_have_the_power_that_is_asked_for() -> None:
    rng = np.random.default_rng(4)

    def differences(seeds: int) -> np.ndarray:
        seed = 0.2 * rng.normal(size=(seeds, 1))
        return 0.15 + seed + 0.3 * rng.normal(size=(1, 200)) + 0.1 * rng.normal(size=(seeds, 200))

    wanted = [seeds_to_decide(differences(30), 0.15) for _ in range(5)]
    seeds = round(float(np.median(wanted)))
    shown = 0
    for _ in range(300):
        shown += crossed_interval(differences(seeds)).low > 0
    assert 0.72 <= shown / 300 <= 0.92
    assert seeds_to_decide(differences(5), 0.001) is None
