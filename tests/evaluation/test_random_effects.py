"""Pooling equals statsmodels and its formulas, and covers what it claims to cover."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from ehrmeta.errors import DataError
from ehrmeta.evaluation import pool_random_effects


@pytest.mark.parametrize("seed", range(4))
def test_mean_variance_and_interval_are_statsmodels(seed):
    rng = np.random.default_rng(seed)
    y, variance = rng.normal(0, 0.7, 9), rng.uniform(0.05, 0.4, 9)
    pooled = pool_random_effects(y, np.sqrt(variance))
    weight = 1 / (variance + pooled.tau2)
    q = np.sum(weight * (y - np.average(y, weights=weight)) ** 2)
    assert q == pytest.approx(8, abs=1e-8)  # Paule and Mandel's equation
    oracle = combine_effects(y, variance, method_re="iterated")
    assert pooled.tau2 == pytest.approx(oracle.tau2, abs=1e-4)  # as far as it iterates
    fit = sm.WLS(y, np.ones(9), weights=weight).fit()  # its scaled variance is Hartung-Knapp's
    assert pooled.value == pytest.approx(fit.params[0], abs=1e-9)
    np.testing.assert_allclose([pooled.low, pooled.high], fit.conf_int()[0], atol=1e-9)
    half = stats.t.ppf(0.975, 7) * np.sqrt(pooled.tau2 + fit.bse[0] ** 2)
    assert pooled.prediction_high == pytest.approx(pooled.value + half, abs=1e-9)
    assert pooled.prediction_low == pytest.approx(pooled.value - half, abs=1e-9)


def test_sites_that_agree_have_no_variance_between():
    pooled = pool_random_effects([1.0, 1.01, 0.99, 1.0], np.full(4, 0.2))
    assert pooled.tau2 == 0
    assert pooled.value == pytest.approx(1.0)


def test_intervals_cover_the_mean_and_a_new_site():
    rng = np.random.default_rng(0)
    mean_in = new_in = 0
    for _ in range(600):
        se = rng.uniform(0.1, 0.3, 10)
        pooled = pool_random_effects(0.5 + rng.normal(0, 0.3, 10) + se * rng.normal(size=10), se)
        mean_in += pooled.low < 0.5 < pooled.high
        new_in += pooled.prediction_low < 0.5 + 0.3 * rng.normal() < pooled.prediction_high
    assert 0.92 < mean_in / 600 < 0.98
    assert 0.92 < new_in / 600 < 0.98


def test_moving_and_stretching_the_scale_moves_and_stretches_the_answer():
    y, se = np.array([0.1, 0.5, 0.4, 0.9]), np.array([0.1, 0.2, 0.1, 0.3])
    plain, moved = pool_random_effects(y, se), pool_random_effects(3 * y + 2, 3 * se)
    np.testing.assert_allclose(moved[:5], 3 * np.array(plain[:5]) + 2)
    assert moved.tau2 == pytest.approx(9 * plain.tau2)


@pytest.mark.parametrize(
    ("y", "se", "reason"),
    [
        ([1, 2], [1, 1], "at least 3 sites"),
        ([1, 2, 3], [1, 1], "one value for each"),
        ([1, 2, 3], [1, 0, 1], "not positive in 1 of 3"),
        ([1, 2, np.nan], [1, 1, 1], "estimate is NaN"),
    ],
)
def test_bad_input_is_refused(y, se, reason):
    with pytest.raises(DataError, match=reason):
        pool_random_effects(y, se)
