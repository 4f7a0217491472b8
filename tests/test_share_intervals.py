"""Intervals of shares: oracles, hand-worked values, coverage, and what cannot be said."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from critique_rl.intervals import (
    beta_quantile,
    crossed_interval,
    share_contrast_interval,
    share_interval,
)
from critique_rl.intervals.seeds import excluded_chance, split_seeds
from critique_rl.intervals.shares import binomial_interval


@pytest.mark.parametrize("p", [0.001, 0.025, 0.5, 0.975])
@pytest.mark.parametrize(("a", "b"), [(1, 100), (0.3, 40.5), (37, 2.5), (900, 1100)])
def test_beta_quantiles_are_scipys(p, a, b) -> None:
    assert beta_quantile(p, a, b) == pytest.approx(stats.beta.ppf(p, a, b), rel=1e-7, abs=1e-12)


def test_the_binomial_interval_is_scipys_exact_one() -> None:
    for right, number in ((0, 7), (1, 30), (15, 30), (30, 30)):
        exact = stats.binomtest(right, number).proportion_ci(method="exact")
        assert binomial_interval(right, number) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_nothing_right_and_everything_right_have_a_width_by_the_number_of_problems() -> None:
    # 50 problems: 1 - .025^(1/50) = .0711, however many seeds and samples there are
    upper = 1 - 0.025 ** (1 / 50)
    nothing = share_interval(np.zeros((5, 50)), tries=16)
    assert (nothing.low, nothing.high) == (0.0, pytest.approx(upper))
    everything = share_interval(np.ones((3, 50)), tries=16)
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


def test_seeds_that_took_off_are_told_from_those_that_did_not() -> None:
    values_SP = np.array([[0.0] * 20, [1.0] * 10 + [0.5] * 10, [0.05] * 20, [0.8] * 20, [0.0] * 20])
    split = split_seeds(values_SP, start=0.02)
    assert (split.took_off, split.collapsed, split.is_mixed) == (2, 0, True)
    assert split.median == pytest.approx(0.05)
    exact = stats.binomtest(2, 5).proportion_ci(method="exact")
    assert split.share == pytest.approx((exact.low, exact.high), abs=1e-9)
    assert split.among.mean == pytest.approx(0.775)
    assert split.among.low < 0.7
    one = split_seeds(values_SP[:3], start=0.02)
    assert one.took_off == 1
    # One seed says nothing of other seeds.
    assert math.isnan(one.among.low)
    none = split_seeds(values_SP[[0, 2, 4]], start=0.02)
    assert (none.took_off, none.among, none.is_mixed) == (0, None, False)
    fallen = split_seeds(values_SP, start=0.9)
    assert (fallen.took_off, fallen.collapsed) == (0, 4)
    # (1 - c)^5 = .05
    assert excluded_chance(5) == pytest.approx(1 - 0.05**0.2)
