import matplotlib.pyplot as plt
import numpy as np
import pytest

from ehrmeta.errors import DataError
from ehrmeta.evaluation import decision_curve
from ehrmeta.report import DecisionCurveDisplay

THRESHOLD = np.array([0.1, 0.3, 0.5])


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
