"""Our statistics against scipy's, scikit-learn's and torchmetrics', pass@k against every subset.

rliable does not install beside this numpy and pandas: benchmarks/against_rliable.py, in an
environment of its own.
"""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from critique_rl.intervals import crossed_interval, sign_flip_p
from critique_rl.metrics import (
    auroc,
    brier_score,
    expected_calibration_error,
    pass_at_k,
    reliability_bins,
)


def test_over_seeds_alone_the_interval_is_scipys_t_interval():
    values = np.random.default_rng(1).normal(size=6)
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    interval = crossed_interval(values[:, None])
    assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize("seeds", [8, 11, 20])
def test_sign_flips_are_scipys_permutation_test(seeds):
    values = np.random.default_rng(seeds).normal(0.4, 1, seeds)
    options = {"n_resamples": np.inf if seeds < 16 else 100_000, "rng": np.random.default_rng(0)}
    expected = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", vectorized=False, **options
    ).pvalue
    assert sign_flip_p(values) == pytest.approx(expected, abs=0 if seeds < 16 else 0.01)


def test_pass_at_k_is_the_share_of_all_subsets_with_a_right_sample():
    for n in range(1, 8):
        for right in range(n + 1):
            for k in range(1, n + 1):
                subsets = list(combinations([True] * right + [False] * (n - right), k))
                assert pass_at_k(n, right, k) == pytest.approx(
                    sum(map(any, subsets)) / len(subsets)
                )


def stated(seed, levels):
    """Confidences (of eleven levels, as the lab's answers state them, or any), and correctness that
    goes with them somewhat.
    """
    random = np.random.default_rng(seed)
    confidence = random.integers(0, 11, 400) / 10 if levels else random.uniform(size=400)
    return confidence, random.uniform(size=400) < 0.2 + 0.5 * confidence


@pytest.mark.parametrize("levels", [True, False])
def test_brier_and_auroc_are_scikit_learns(levels):
    from sklearn.metrics import brier_score_loss, roc_auc_score

    confidence, correct = stated(3, levels)
    assert brier_score(confidence, correct) == pytest.approx(brier_score_loss(correct, confidence))
    assert auroc(confidence, correct) == pytest.approx(roc_auc_score(correct, confidence))


def test_reliability_bins_are_scikit_learns():
    from sklearn.calibration import calibration_curve

    confidence, correct = stated(5, False)
    right, mean = calibration_curve(correct, confidence, n_bins=10)
    bins = reliability_bins(confidence, correct)
    assert [each.right for each in bins] == pytest.approx(list(right))
    assert [each.mean for each in bins] == pytest.approx(list(mean))


def test_the_calibration_error_is_torchmetrics():
    import torch
    from torchmetrics.functional.classification import binary_calibration_error

    # Not the lab's eleven levels: a confidence on the edge of two bins is in the lower one here, in
    # the upper one there.
    for seed in (1, 2):
        confidence, correct = stated(seed, False)
        # torchmetrics takes the confidence of the class 1, whose "accuracy" is the target
        expected = binary_calibration_error(
            torch.tensor(confidence), torch.tensor(correct).int(), n_bins=10, norm="l1"
        )
        assert expected_calibration_error(confidence, correct) == pytest.approx(
            float(expected), abs=1e-6
        )
