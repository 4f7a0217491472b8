"""Our statistics against scipy's. rliable does not install beside this numpy and pandas: benchmarks/against_rliable.py, in an environment of its own."""

import numpy as np
import pytest
from scipy import stats

from critique_rl.metrics import crossed_interval, sign_flip_p, t_quantile


@pytest.mark.parametrize("df", [0.7, 1, 2.5, 4, 30, 1e5])
def test_t_quantiles_are_scipys(df):
    for p in (0.6, 0.9, 0.975, 0.999):
        assert t_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-7)


def test_over_seeds_alone_the_interval_is_scipys_t_interval():
    values = np.random.default_rng(1).normal(size=6)
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    interval = crossed_interval(values[:, None])
    assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize("seeds", [8, 11, 20])
def test_sign_flips_are_scipys_permutation_test(seeds):
    values = np.random.default_rng(seeds).normal(0.4, 1, seeds)
    options = {"n_resamples": np.inf if seeds < 16 else 100_000, "rng": np.random.default_rng(0)}
    expected = stats.permutation_test((values,), np.mean, permutation_type="samples", vectorized=False, **options).pvalue
    assert sign_flip_p(values) == pytest.approx(expected, abs=0 if seeds < 16 else 0.01)
