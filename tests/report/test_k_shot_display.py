import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from ehrmeta import Table
from ehrmeta.baselines import LastValue, TaskMean
from ehrmeta.errors import DataError
from ehrmeta.evaluation import k_shot_curve
from ehrmeta.report import KShotDisplay


@pytest.fixture(scope="module")
def patients():
    rng = np.random.default_rng(0)
    id_, day = np.repeat(np.arange(40), 6), np.tile(np.arange(6.0), 40)
    hdl = 50 + rng.normal(0, 9, 40)[id_] + rng.normal(0, 3, 240)
    frame = pd.DataFrame({"id": id_, "day": day, "age": 50 + day, "hdl": hdl})
    return Table.from_frame(frame, task="id", time="day", outcome="hdl", units={"hdl": "mg/dL"})


@pytest.fixture(scope="module")
def models(patients):
    data = {"groups": patients.groups, "time": patients.time}
    return {
        "last value": LastValue().fit(patients.X, patients.y, **data),
        "patient mean": TaskMean().fit(patients.X, patients.y, **data),
    }


def test_lines_are_the_curve_and_axes_have_units(models, patients):
    display = KShotDisplay.from_estimator(
        models, patients.X, patients.y, groups=patients.groups, time=patients.time, shots=(0, 1, 3)
    )
    expected = k_shot_curve(
        models,
        patients.X,
        patients.y,
        groups=patients.groups,
        time=patients.time,
        shots=(0, 1, 3),
        query="fixed",
    )
    expected = expected[expected.metric == "rmse_macro"].set_index("method")
    for line in display.ax_.lines:
        np.testing.assert_array_equal(line.get_xdata(), [0, 1, 3])
        np.testing.assert_allclose(line.get_ydata(), expected.value[line.get_label()])
    assert len(display.ax_.lines) == len(display.ax_.collections) == 2
    assert "[mg/dL]" in display.ax_.get_ylabel()
    assert "(40 patients)" in display.ax_.get_xlabel()


def test_one_estimator_goes_by_its_name_on_the_axes_given(models, patients):
    _, ax = plt.subplots()
    display = KShotDisplay.from_estimator(
        models["last value"],
        patients.X,
        patients.y,
        groups=patients.groups,
        time=patients.time,
        shots=(1,),
        metric="mae_macro",
        n_bootstrap=10,
        ax=ax,
    )
    assert (display.ax_, display.figure_) == (ax, ax.figure)
    assert [line.get_label() for line in ax.lines] == ["LastValue"]
    assert "absolute error" in ax.get_ylabel()


def test_a_metric_that_the_curve_lacks_is_refused(models, patients):
    data = {"groups": patients.groups, "time": patients.time}
    curve = k_shot_curve(models, patients.X, patients.y, **data, shots=(1,), n_bootstrap=0)
    with pytest.raises(DataError, match="Did you mean 'rmse_macro'"):
        KShotDisplay.from_curve(curve, metric="rmse_makro")
