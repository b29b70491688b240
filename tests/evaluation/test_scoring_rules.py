"""Laws of the scores: each equals its definition, by integration or by drawing."""

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from ehrmeta.errors import DataError
from ehrmeta.evaluation import (
    calibration_error,
    crps_normal,
    crps_sample,
    crps_student_t,
    interval_score,
    log_probability_between,
)


def crps_by_integration(y, distribution):
    below = quad(lambda v: distribution.cdf(v) ** 2, -np.inf, y)[0]
    return below + quad(lambda v: distribution.sf(v) ** 2, y, np.inf)[0]


@pytest.mark.parametrize(("y", "loc", "scale"), [(0.3, 0.0, 1.0), (-4.0, 1.0, 2.5)])
def test_crps_is_the_integral_of_its_definition(y, loc, scale):
    expected = crps_by_integration(y, stats.norm(loc, scale))
    assert crps_normal([y], [loc], [scale])[0] == pytest.approx(expected, rel=1e-6)
    for dof in (2.5, 7.0):
        expected = crps_by_integration(y, stats.t(dof, loc, scale))
        assert crps_student_t([y], [loc], [scale], dof)[0] == pytest.approx(expected, rel=1e-6)


def test_a_point_is_scored_by_its_absolute_error():
    assert crps_normal([3.0], [1.0], [0.0])[0] == pytest.approx(2.0)
    assert crps_student_t([3.0], [1.0], [0.0], 4.0)[0] == pytest.approx(2.0)


def test_the_sample_score_has_no_bias():
    rng = np.random.default_rng(0)
    y = np.repeat(0.7, 40_000)
    for m in (2, 5):
        score = crps_sample(y, rng.normal(0, 1, (len(y), m))).mean()
        assert score == pytest.approx(crps_normal([0.7], [0.0], [1.0])[0], abs=0.01)
    few = rng.normal(size=(1, 6))
    pairs = np.abs(few[0][:, None] - few[0]).sum() / (2 * 6 * 5)
    assert crps_sample([0.7], few)[0] == pytest.approx(np.abs(few - 0.7).mean() - pairs)


def test_the_interval_score_is_least_at_the_quantiles():
    y = np.random.default_rng(0).normal(size=100_000)
    ends = stats.norm.ppf([0.05, 0.95])

    def mean_score(factor):
        low, high = (np.full(len(y), factor * end) for end in ends)
        return interval_score(y, low, high, confidence_level=0.9).mean()

    assert mean_score(1.0) < min(mean_score(0.8), mean_score(1.25))


def test_bin_probabilities_are_differences_of_the_distribution_function():
    low, high = np.array([-0.5, 3.0, -7.0]), np.array([0.5, 4.0, -6.0])
    expected = np.log(stats.norm.cdf(high, 1, 2) - stats.norm.cdf(low, 1, 2))
    score = log_probability_between(low, high, np.ones(3), np.full(3, 2.0))
    np.testing.assert_allclose(score, expected, rtol=1e-6)
    expected = np.log(stats.t.cdf(high, 4, 1, 2) - stats.t.cdf(low, 4, 1, 2))
    score = log_probability_between(low, high, np.ones(3), np.full(3, 2.0), np.full(3, 4.0))
    np.testing.assert_allclose(score, expected, rtol=1e-6)


def test_bin_probabilities_far_out_are_mirrored_and_finite():
    near, far = (
        log_probability_between([a], [b], [0.0], [1.0])[0] for a, b in ((-31, -30), (30, 31))
    )
    assert near == pytest.approx(far) == pytest.approx(stats.norm.logcdf(-30), rel=1e-6)
    open_ended = log_probability_between([-np.inf], [0.0], [0.0], [1.0])[0]
    assert open_ended == pytest.approx(np.log(0.5))


def test_calibration_error_sees_bias_and_wrong_spread():
    rng = np.random.default_rng(0)
    y = rng.normal(size=50_000)
    assert calibration_error(stats.norm.cdf(y)) < 0.01
    assert calibration_error(stats.norm.cdf(y, loc=20)) == pytest.approx(0.475)
    assert calibration_error(stats.norm.cdf(y, scale=3)) > 0.1
    twice = calibration_error([0.1, 0.1, 0.6])
    assert calibration_error([0.1, 0.6], sample_weight=[2.0, 1.0]) == pytest.approx(twice)


def test_errors_say_what_to_do():
    with pytest.raises(DataError, match="sd is negative in 1 of"):
        crps_normal([0.0], [0.0], [-1.0])
    with pytest.raises(DataError, match="dof must be more than 1"):
        crps_student_t([0.0], [0.0], [1.0], 1.0)
    with pytest.raises(DataError, match="at least two draws"):
        crps_sample([0.0], [[1.0]])
    with pytest.raises(DataError, match="low exceeds high in 1 of"):
        interval_score([0.0], [1.0], [0.0])
    with pytest.raises(DataError, match="scale is 0 in 1 of"):
        log_probability_between([0.0], [1.0], [0.0], [0.0])
    with pytest.raises(DataError, match="between 0 and 1"):
        calibration_error([1.5])
