"""The curve is Cleveland's smoother, the index its distance from the diagonal; recalibration."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import special
from statsmodels.nonparametric.smoothers_lowess import lowess as cleveland

from ehrmeta.errors import DataError
from ehrmeta.evaluation import risk_score, smooth_calibration_curve
from ehrmeta.evaluation.calibration import recalibrate


def cohort(n, digits=12, seed=0):
    rng = np.random.default_rng(seed)
    logit = rng.normal(-1, 1.2, n)
    y = (rng.random(n) < special.expit(0.6 * logit)).astype(float)
    return y, special.expit(logit).round(digits)


def oracle(y, p, frac=2 / 3):
    return cleveland(y, p, frac=frac, it=0, delta=0.0, return_sorted=False)


@pytest.mark.parametrize("frac", [0.3, 2 / 3])
@pytest.mark.parametrize("digits", [12, 1])  # with all risks different, and with many ties
def test_the_curve_is_statsmodels_lowess(digits, frac):
    y, p = cohort(250, digits)
    curve = smooth_calibration_curve(y, p, frac=frac)
    np.testing.assert_allclose(curve, oracle(y, p, frac), atol=1e-12)


def test_the_index_is_the_mean_distance_of_that_curve():
    y, p = cohort(250)
    assert risk_score("ici", y, p) == pytest.approx(np.mean(np.abs(oracle(y, p) - p)), abs=1e-12)


@pytest.mark.parametrize("level", [0.0, -3.5])  # of rare events risks pile up near 0
def test_many_risks_are_interpolated_closely(level):
    rng = np.random.default_rng(0)
    logit = level + 1.2 * rng.normal(size=1500)
    y, p = (rng.random(1500) < special.expit(0.8 * logit)).astype(float), special.expit(logit)
    exact = np.mean(np.abs(smooth_calibration_curve(y, p) - p))
    assert risk_score("ici", y, p) == pytest.approx(exact, abs=1e-6)


def test_the_index_of_true_risks_falls_with_the_rows():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.05, 0.95, 4000)
    y = rng.random(4000) < p
    assert risk_score("ici", y, p) < 0.02 < risk_score("ici", y, p**2)


def test_equal_weights_change_nothing_and_weight_zero_is_no_row():
    y, p = cohort(120)
    plain = smooth_calibration_curve(y, p, at=[0.2, 0.4])
    same = smooth_calibration_curve(y, p, at=[0.2, 0.4], sample_weight=np.full(120, 0.3))
    np.testing.assert_allclose(same, plain)
    kept = np.arange(120) < 80
    fewer = smooth_calibration_curve(y[kept], p[kept], at=[0.2, 0.4])
    zero = smooth_calibration_curve(y, p, at=[0.2, 0.4], sample_weight=kept)
    np.testing.assert_allclose(zero, fewer)


def test_bad_points_are_refused():
    with pytest.raises(DataError, match="at is NaN"):
        smooth_calibration_curve([0, 1], [0.1, 0.4], at=[np.nan])


@given(
    intercept=st.floats(-6, 6), slope=st.floats(-3, 3), seed=st.integers(0, 1000), n=st.just(200)
)
def test_recalibrated_risks_have_slope_one_and_the_right_level(intercept, slope, seed, n):
    rng = np.random.default_rng(seed)
    logit = 3 * rng.normal(size=n)
    y = (rng.random(n) < special.expit(intercept + slope * logit)).astype(float)
    y[:2], logit[:4] = [0, 1], [9, -9, -9, 9]  # both classes, overlapping
    y[2:4] = [0, 1]
    p = special.expit(logit)
    ((a, b),) = recalibrate(y, p, np.ones((1, n)), with_slope=True)
    again = special.expit(a + b * logit)
    assert risk_score("e_o_ratio", y, again) == pytest.approx(1, abs=1e-6)
    if abs(b) > 1e-3:
        assert risk_score("calibration_slope", y, again) == pytest.approx(1, abs=1e-4)
    ((level, _),) = recalibrate(y, p, np.ones((1, n)), with_slope=False)
    assert risk_score("e_o_ratio", y, special.expit(level + logit)) == pytest.approx(1, abs=1e-6)


def test_without_a_finite_estimate_recalibration_is_nan_and_leaves_other_samples_alone():
    y, p = np.array([0.0, 1.0, 1.0, 0.0]), np.array([0.2, 0.3, 0.7, 0.8])
    weight = np.array([[1.0, 1, 1, 1], [1, 0, 0, 1], [1, 1, 1, 0]])  # one class; separated
    lines = recalibrate(y, p, weight, with_slope=True)
    assert np.isfinite(lines).all(axis=1).tolist() == [True, False, False]
    np.testing.assert_array_equal(lines[:1], recalibrate(y, p, weight[:1], with_slope=True))
    assert np.isnan(recalibrate(y, np.round(p), weight, with_slope=True)).all()
