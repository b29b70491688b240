import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from ehrmeta import MLP, Clock, ConformalRegressor, Feature, MetaRegressor, Outcome, Schema
from ehrmeta.errors import DataError
from ehrmeta.report import TrajectoryDisplay

VISITS = 8


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(0)
    groups, time = np.repeat(np.arange(30), VISITS), np.tile(np.arange(VISITS) * 400.0, 30)
    X = pd.DataFrame({"age": 50 + time / 365.25, "sex": np.where(groups % 2, "f", "m")})
    y = rng.normal(50, 5, 30)[groups] + rng.normal(0, 1, len(groups))
    schema = Schema(
        (Feature("age", unit="a"), Feature("sex", kind="categorical", role="static")),
        Outcome("hdl", unit="mg/dL", label="HDL cholesterol"),
        time=Clock("day", is_feature=False),
    )
    model = MetaRegressor(backbone=MLP((8,)), schema=schema, max_steps=20, random_state=0)
    return model.fit(X, y, groups=groups, time=time), X, y, time


@pytest.fixture(scope="module")
def figure(cohort):
    model, X, y, time = cohort
    rows = np.r_[3, 0:3, 4:VISITS]  # not in the order of time
    found = TrajectoryDisplay.from_estimator(model, X.iloc[rows], y[rows], time=time[rows], shots=3)
    return found.figure_


def line(figure, words):
    (found,) = [drawn for drawn in figure.axes[0].lines if words in drawn.get_label()]
    return found


def test_axes_name_outcome_unit_and_a_readable_unit_of_time(figure):
    axes = figure.axes[0]
    assert axes.get_ylabel() == "HDL cholesterol [mg/dL]"
    assert axes.get_xlabel() == "years since the patient's first value"


def test_every_value_is_drawn_once_and_split_at_the_support(figure, cohort):
    y = cohort[2]
    np.testing.assert_array_equal(line(figure, "shown to the model").get_ydata(), y[:3])
    np.testing.assert_array_equal(line(figure, "5 later values").get_ydata(), y[3:VISITS])


def test_the_adapted_line_starts_after_the_support_and_is_the_models(figure, cohort):
    model, X, y, time = cohort
    drawn = line(figure, "adapted to the first 3")
    assert drawn.get_xdata()[~np.isnan(drawn.get_ydata())][0] > time[2] / 365.25
    adapted = model.adapt(X[:3], y[:3], time=time[:3])
    last = adapted.predict(X[VISITS - 1 : VISITS], time=time[VISITS - 1 : VISITS])
    np.testing.assert_allclose(drawn.get_ydata()[-1], last[0], rtol=1e-6)


def test_the_population_line_spans_everything(figure, cohort):
    model, X, _, time = cohort
    drawn = line(figure, "population prediction")
    ends = [0, VISITS - 1]
    np.testing.assert_allclose(drawn.get_xdata()[[0, -1]], time[ends] / 365.25)
    expected = model.predict(X.iloc[ends], time=time[ends])
    np.testing.assert_allclose(drawn.get_ydata()[[0, -1]], expected, rtol=1e-6)


def test_the_legend_lies_below_the_axes_and_explains_every_mark(figure, tmp_path):
    figure.savefig(tmp_path / "patient.png")
    axes = figure.axes[0]
    assert len(axes.get_legend().get_texts()) == 5
    words = axes.xaxis.label.get_window_extent()
    assert not axes.get_legend().get_window_extent().overlaps(words)
    assert axes.get_legend().get_window_extent().y1 < axes.get_window_extent().y0


def test_a_calibrated_model_draws_its_own_band_on_given_axes(cohort):
    model, X, y, time = cohort
    conformal = ConformalRegressor(model, shots=(3,))
    rows = {"groups": np.repeat(np.arange(30), VISITS), "time": time}
    conformal.calibrate(X, y, **rows, allow_training_table=True)
    ax = plt.subplots()[1]
    first = {"X": X[:VISITS], "y": y[:VISITS], "time": time[:VISITS]}
    drawn = TrajectoryDisplay.from_estimator(conformal, **first, ax=ax)
    assert drawn.ax_ is ax
    one = conformal.adapt(X[:3], y[:3], time=time[:3])
    band = one.predict_interval(X[VISITS - 1 : VISITS], time=time[VISITS - 1 : VISITS])[0]
    assert drawn.lines[["low", "high"]].iloc[-1].to_numpy() == pytest.approx(band)


@pytest.mark.parametrize("shots", [0, VISITS])
def test_a_row_is_needed_on_either_side(cohort, shots):
    model, X, y, time = cohort
    with pytest.raises(DataError, match="leave at least one row"):
        TrajectoryDisplay.from_estimator(
            model, X[:VISITS], y[:VISITS], time=time[:VISITS], shots=shots
        )
