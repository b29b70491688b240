import matplotlib.pyplot as plt
import numpy as np
import pytest

from ehrmeta import MetaClassifier
from ehrmeta.errors import DataError
from ehrmeta.evaluation import decision_curve, risk_score, smooth_calibration_curve
from ehrmeta.report import CalibrationDisplay, DecisionCurveDisplay

THRESHOLD = np.array([0.1, 0.3, 0.5])


@pytest.fixture
def display(cohort):
    _, y, p, _ = cohort
    return CalibrationDisplay.from_predictions(y, p, name="ours", n_bootstrap=40)


def test_the_curve_drawn_is_the_smoothed_one_within_its_band(display, cohort):
    _, y, p, _ = cohort
    (drawn,) = [line for line in display.ax_.lines if "ours" in str(line.get_label())]
    expected = smooth_calibration_curve(y, p, at=drawn.get_xdata()).clip(0, 1)
    np.testing.assert_allclose(drawn.get_ydata(), expected)
    assert np.mean((display.low <= expected) & (expected <= display.high)) > 0.95
    assert np.all(display.low < display.high)


def test_the_legend_tells_slope_level_and_ratio_with_intervals(display, cohort):
    _, y, p, _ = cohort
    words = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    for metric, word in (
        ("calibration_slope", "calibration slope"),
        ("calibration_in_the_large", "calibration in the large"),
        ("e_o_ratio", "E:O"),
    ):
        (line,) = [text for text in words if text.startswith(word)]
        assert f"{risk_score(metric, y, p):.2f} (" in line


def test_every_patient_is_in_the_histogram_and_counted(display, cohort):
    y = cohort[1]
    heights = np.array([bar.get_height() for bar in display.ax_.patches])
    up, down = heights[heights > 0].sum(), -heights[heights < 0].sum()
    assert up / down == pytest.approx(y.sum() / (1 - y).sum())
    words = {text.get_text() for text in display.ax_.texts}
    assert words == {f"{y.sum()} with event", f"{(1 - y).sum()} without event"}


def test_an_estimator_draws_the_risk_of_its_second_class(oracle, cohort):
    X, y, p, _ = cohort
    _, ax = plt.subplots()
    display = CalibrationDisplay.from_estimator(
        oracle, X, oracle.classes_[y], ax=ax, n_bootstrap=5, groups=None
    )
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    assert display.name == "Oracle"
    np.testing.assert_array_equal(display.y_true, y)
    np.testing.assert_allclose(display.y_prob, p)


def test_adapted_hospitals_are_drawn_by_the_labels_of_fit(cohort):
    X, y, _, site = cohort
    died = np.array(["no", "yes"])[y]
    model = MetaClassifier(max_steps=5, random_state=0).fit(X, died, groups=site)
    adapted = model.adapt(X[::3], died[::3], groups=site[::3])
    display = CalibrationDisplay.from_estimator(adapted, X, died, groups=site, n_bootstrap=5)
    np.testing.assert_array_equal(display.y_true, y)
    expected = adapted.predict_proba(X, groups=site)[:, 1]
    np.testing.assert_array_equal(display.y_prob, expected)
    assert display.name == "MetaClassifier"


def test_rare_events_fill_the_axes():
    rng = np.random.default_rng(0)
    p = rng.beta(2, 60, 2000)
    display = CalibrationDisplay.from_predictions(rng.random(2000) < p, p, n_bootstrap=20)
    assert display.ax_.get_xlim()[1] <= 0.3


def test_what_cannot_be_drawn_is_refused(oracle, cohort):
    _, y, p, _ = cohort
    with pytest.raises(DataError, match="0 events in 360 rows"):
        CalibrationDisplay.from_predictions(0 * y, p)
    with pytest.raises(DataError, match="at least two distinct risks"):
        CalibrationDisplay.from_predictions(y, np.full(360, 0.3))
    with pytest.raises(DataError, match="at least 2 resamples"):
        CalibrationDisplay.from_predictions(y, p, n_bootstrap=0)
    with pytest.raises(DataError, match="unseen at fit in 360 of 360"):
        CalibrationDisplay.from_estimator(oracle, p[:, None], y)
    oracle.predict_proba = lambda X: np.ones((len(X), 3)) / 3
    with pytest.raises(DataError, match="classifier of two classes"):
        CalibrationDisplay.from_estimator(oracle, p[:, None], y)


def lines(display):
    return {line.get_label(): line for line in display.ax_.lines}


def test_models_and_strategies_are_drawn_per_hundred_patients(cohort):
    _, y, p, _ = cohort
    models = {"one": p, "two": p**2}
    display = DecisionCurveDisplay.from_predictions(y, models, threshold=THRESHOLD)
    drawn = lines(display)
    assert set(drawn) == {"treat all", "treat none", "one", "two"}
    for name, risk in models.items():
        expected = decision_curve(y, risk, threshold=THRESHOLD)
        np.testing.assert_allclose(drawn[name].get_ydata(), 100 * expected.model)
        np.testing.assert_allclose(drawn["treat all"].get_ydata(), 100 * expected.treat_all)
        np.testing.assert_allclose(drawn[name].get_xdata(), 100 * THRESHOLD)
    np.testing.assert_array_equal(drawn["treat none"].get_ydata(), 0)
    assert "%" in display.ax_.get_xlabel()
    assert "per 100 patients" in display.ax_.get_ylabel()


def test_the_default_thresholds_end_where_risks_do():
    rng = np.random.default_rng(0)
    p = rng.uniform(0, 0.2, 500)
    display = DecisionCurveDisplay.from_predictions(rng.random(500) < p, p)
    assert display.ax_.get_xlim()[1] == pytest.approx(20, abs=1)


def test_an_estimator_is_drawn_on_the_axes_given(oracle, cohort):
    X, y, p, _ = cohort
    _, ax = plt.subplots()
    display = DecisionCurveDisplay.from_estimator(
        oracle, X, oracle.classes_[y], threshold=THRESHOLD, ax=ax
    )
    assert (display.ax_, display.figure_) == (ax, ax.figure)
    expected = decision_curve(y, p, threshold=THRESHOLD).model
    np.testing.assert_allclose(lines(display)["Oracle"].get_ydata(), 100 * expected)


def test_no_model_is_refused(cohort):
    with pytest.raises(DataError, match="at least one"):
        DecisionCurveDisplay.from_predictions(cohort[1], {})
