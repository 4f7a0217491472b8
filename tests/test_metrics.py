"""pass@k and the interval over seeds and problems, against hand-worked values, tables and
simulation.
"""

import math

import numpy as np
import pytest

from critique_rl.intervals import crossed_interval, sign_flip_p, t_quantile
from critique_rl.metrics import (
    auroc,
    brier_score,
    expected_calibration_error,
    pass_at_k,
    reliability_bins,
    selective_risk,
    truthfulness,
)


def test_pass_at_k_is_the_share_of_k_subsets_with_a_right_sample():
    # 2 right of 5: 1 - C(3,2)/C(5,2) = 1 - 3/10;   3 wrong cannot fill 4 places: 1;   k = 1 is the
    # plain mean 2/5
    assert pass_at_k(5, 2, 2) == pytest.approx(0.7)
    assert pass_at_k(5, 2, 4) == 1.0
    assert pass_at_k(5, 2, 1) == pytest.approx(0.4)


def test_pass_at_k_takes_arrays_and_broadcasts():
    # of 4, k = 2: none right 0; one right 1 - C(3,2)/C(4,2) = 1/2; all right 1
    np.testing.assert_allclose(pass_at_k(4, np.array([0, 1, 4]), 2), [0, 0.5, 1])


def test_pass_at_k_is_nan_where_too_few_samples_were_drawn():
    np.testing.assert_array_equal(pass_at_k([3, 4, 0], [3, 4, 0], 4), [math.nan, 1.0, math.nan])


def test_pass_at_k_survives_thousands_of_samples():
    # C(10000, 5000) overflows a float; one right of 10000 at k = 5000 is 1 - 5000/10000
    assert pass_at_k(10_000, 1, 5_000) == pytest.approx(0.5)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 0)])
def test_pass_at_k_refuses_impossible_counts(n, c, k):
    with pytest.raises(ValueError, match="got"):
        pass_at_k(n, c, k)


@pytest.mark.parametrize(
    ("p", "df", "expected"),
    [
        (0.975, 1, 12.70620),
        (0.975, 4, 2.77645),
        (0.975, 10, 2.22814),
        (0.95, 2, 2.91999),
        (0.995, 30, 2.75000),
        (0.975, 120, 1.97993),
    ],
)
def test_t_quantile_agrees_with_the_printed_table(p, df, expected):
    assert t_quantile(p, df) == pytest.approx(expected, abs=1e-5)
    assert t_quantile(1 - p, df) == pytest.approx(-expected, abs=1e-5)


def test_t_quantile_inverts_the_integral_of_the_density_at_fractional_df():
    df = 2.5
    t = t_quantile(0.975, 2.5)
    x = np.linspace(0, t, 20_001)
    density = (
        math.gamma((df + 1) / 2)
        / (math.sqrt(df * math.pi) * math.gamma(df / 2))
        * (1 + x * x / df) ** (-(df + 1) / 2)
    )
    assert 0.5 + np.trapezoid(density, x) == pytest.approx(0.975, abs=1e-7)


def test_t_quantile_ends_in_the_normal():
    assert t_quantile(0.975, math.inf) == pytest.approx(1.959964, abs=1e-6)
    assert t_quantile(0.975, 1e5) == pytest.approx(
        1.959988, abs=1e-6
    )  # 1.959964 + (1.96^3 + 1.96) / (4 df)


def test_the_interval_adds_seed_and_problem_variance():
    # rows 1 2 / 3 6: mean 3; row means 1.5, 4.5: MS_seed = 2 * 4.5 / 1 = 9; column means 2, 4:
    # MS_problem = 2 * 2 / 1 = 4;
    # residuals +-0.5: MS_residual = 1. Var = (9 + 4 - 1) / 4 = 3, df = 12^2 / (81 + 16 + 1) =
    # 144/98
    interval = crossed_interval([[1, 2], [3, 6]])
    assert interval.mean == 3
    assert interval.high - 3 == pytest.approx(t_quantile(0.975, 144 / 98) * math.sqrt(3))
    assert 3 - interval.low == pytest.approx(interval.high - 3)


def test_the_interval_never_narrows_below_the_residual():
    # rows 1 0 / 0 1: both main effects vanish and 0 + 0 - 1 is negative; MS_residual = 1 on 1 df is
    # left: Var = 1/4
    interval = crossed_interval([[1, 0], [0, 1]])
    assert interval.high - interval.mean == pytest.approx(t_quantile(0.975, 1) * 0.5)


def test_one_seed_covers_problems_only_and_one_problem_seeds_only():
    # 0 1 2: variance 1, standard error 1/sqrt(3), t(2 df) = 4.30265
    for values in ([[0, 1, 2]], [[0], [1], [2]]):
        interval = crossed_interval(values)
        assert (interval.mean, interval.high) == (
            1,
            pytest.approx(1 + 4.30265 / math.sqrt(3), abs=1e-5),
        )


def test_a_single_value_has_a_mean_and_no_interval():
    interval = crossed_interval([[0.25]])
    assert interval.mean == 0.25
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_values_that_never_vary_have_an_interval_of_no_width():
    interval = crossed_interval(np.full((3, 4), 0.5))
    assert (interval.low, interval.high) == (0.5, 0.5)


def test_holes_in_the_matrix_are_a_bug_of_the_caller():
    with pytest.raises(AssertionError, match="1 of 4"):
        crossed_interval([[1, math.nan], [0, 1]])


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize(
    ("seed_sd", "problem_sd"),
    [(1.0, 0.3), (0.3, 3.0), (0.01, 1.0)],
    ids=["seeds dominate", "both alike", "problems dominate"],
)
def test_the_interval_covers_the_truth_over_fresh_seeds_and_problems(seeds, seed_sd, problem_sd):
    # standard errors of the mean: seeds .58 to .32 against problems .03; .17 to .09 against .3;
    # .006 against .1
    random = np.random.default_rng(7)
    hits = 0
    for _ in range(800):
        seed = random.normal(size=(seeds, 1))
        problem = random.normal(size=(1, 100))
        both = random.normal(size=(seeds, 100))
        interval = crossed_interval(0.2 + seed_sd * seed + problem_sd * problem + 0.5 * both)
        hits += interval.low <= 0.2 <= interval.high
    assert hits / 800 >= 0.93


def test_the_sign_flip_test_is_exact_and_needs_eight_seeds():
    assert sign_flip_p([1.0] * 7) is None
    assert sign_flip_p([1.0] * 8) == 2 / 2**8  # all signs as they are, or all turned
    # one of eight is turned: as far or further out are 0 or 1 turned, and 7 or 8: 2 * (1 + 8) of
    # 256
    assert sign_flip_p([1.0] * 7 + [-1.0]) == 18 / 256
    assert sign_flip_p([0.0] * 8) == 1.0


def test_reliability_bins_and_their_error_by_hand():
    confidence, correct = [0.0, 0.1, 0.15, 0.95, 1.0], [0, 0, 1, 1, 1]
    bins = reliability_bins(confidence, correct)
    # (0, .1] holds 0 and .1; (.1, .2] holds .15; (.9, 1] holds .95 and 1
    assert [(b.low, b.count, b.right) for b in bins] == [
        (0.0, 2, 0.0),
        (0.1, 1, 1.0),
        (0.9, 2, 1.0),
    ]
    assert bins[0].mean == pytest.approx(0.05)
    assert bins[2].mean == pytest.approx(0.975)
    assert expected_calibration_error(confidence, correct) == pytest.approx(
        (2 * 0.05 + 0.85 + 2 * 0.025) / 5
    )
    assert math.isnan(expected_calibration_error([], []))
    with pytest.raises(ValueError, match="from 0 to 1"):
        reliability_bins([1.5], [1])


def test_brier_and_auroc_by_hand():
    confidence, correct = [0.9, 0.6, 0.6, 0.2], [1, 1, 0, 0]
    assert brier_score(confidence, correct) == pytest.approx((0.01 + 0.16 + 0.36 + 0.04) / 4)
    # right .9 over both wrong ones; right .6 ties with .6 and is over .2: (2 + 1.5) / 4
    assert auroc(confidence, correct) == pytest.approx(3.5 / 4)
    assert math.isnan(auroc(confidence, [1, 1, 1, 1]))
    assert math.isnan(brier_score([], []))


def test_selective_risk_is_of_the_surest_and_shares_ties():
    confidence, correct = [0.9, 0.6, 0.6, 0.2], [1, 1, 0, 0]
    assert selective_risk(confidence, correct, 0.25) == 0
    assert selective_risk(confidence, correct, 0.5) == pytest.approx(
        0.5 / 2
    )  # .9, and one of the two at .6, half of them wrong
    assert selective_risk(confidence, correct, 1.0) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="coverage"):
        selective_risk(confidence, correct, 0)


def test_truthfulness_is_accuracy_minus_hallucination_and_leaves_the_unscored_out():
    rates = truthfulness(["right", "right", "abstained", "wrong", "unreadable", "unscored"])
    assert rates == pytest.approx(
        {"accuracy": 0.4, "abstention": 0.2, "hallucination": 0.4, "truthfulness": 0.0}
    )
    # the released code's form: (2 correct + missing - n) / n
    assert rates["truthfulness"] == pytest.approx((2 * 2 + 1 - 5) / 5)
    assert math.isnan(truthfulness(["unscored"])["truthfulness"])
