"""Training and shrinkage are drawn as the model holds them."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from ehrmeta import MAML, MetaClassifier, MetaRegressor, Table
from ehrmeta.baselines import LastValue, TaskMean
from ehrmeta.errors import DataError
from ehrmeta.evaluation import k_shot_curve
from ehrmeta.report import HistoryDisplay, KShotDisplay, ShrinkageDisplay, k_shot_table

RNG = np.random.default_rng(0)
GROUPS = np.repeat(np.arange(40), 6)
X, Y = RNG.normal(size=(240, 1)), RNG.normal(0, 3, 40)[GROUPS] + RNG.normal(50, 1, 240)


@pytest.fixture(scope="module")
def model() -> MetaRegressor:
    return MetaRegressor(MAML(), max_steps=60, random_state=0).fit(X, Y, groups=GROUPS)


def test_every_check_of_the_training_is_drawn(model):
    training, held_out, best = HistoryDisplay.from_estimator(model).ax_.lines
    np.testing.assert_array_equal(training.get_ydata(), [h["loss"] for h in model.history_])
    losses = [h["held_out_loss"] for h in model.history_]
    np.testing.assert_array_equal(held_out.get_ydata(), losses)
    assert best.get_xdata()[0] == model.history_[int(np.argmin(losses))]["step"]


def test_the_title_is_the_shrinkage_of_the_adapted_tasks():
    y = Y + RNG.normal(0, 5, 240)  # one noisy row says much less than six
    model = MetaRegressor(max_steps=5, random_state=0).fit(X, y, groups=GROUPS)
    few = np.tile(np.arange(6) < 1, 40)
    one, all_rows = (model.adapt(X[m], y[m], groups=GROUPS[m]) for m in (few, few | True))
    shares = []
    for adapted in (one, all_rows):
        display = ShrinkageDisplay.from_estimator(adapted)
        percent = 100 * adapted.eta_shrinkage_
        assert display.ax_.get_title(loc="left") == f"shrinkage {percent:.0f} %"
        shares.append(np.std(display.effects))
    assert 0.0 < shares[0] < shares[1]
    assert display.prior_sd == pytest.approx(3.0, rel=0.6)  # in the unit of the outcome


def test_what_cannot_be_drawn_is_refused(model):
    with pytest.raises(DataError, match="has no training history"):
        HistoryDisplay.from_estimator(MetaRegressor())
    with pytest.raises(DataError, match="needs at least two tasks"):
        ShrinkageDisplay.from_estimator(model.adapt(X[:2], Y[:2]))
    risk = MetaClassifier(max_steps=2, random_state=0).fit(X, Y > 50, groups=GROUPS)
    with pytest.raises(DataError, match="by a MetaClassifier"):
        ShrinkageDisplay.from_estimator(risk.adapt(X, Y > 50, groups=GROUPS))


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
        "last value": LastValue().fit(patients.X, patients.y + 1.0, **data),
        "patient mean": TaskMean().fit(patients.X, patients.y + 1.0, **data),
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


def curve(**values):
    """A curve of one metric at k = 1 and 3; each method holds its values and their intervals."""
    rows = [
        {
            "method": method,
            "k": k,
            "horizon": "all",
            "metric": "rmse_macro",
            "value": value,
            "difference": np.nan,
            "difference_low": low,
            "difference_high": high,
            "n_tasks": 1200 - k,
            "n_excluded": k,
        }
        for method, cells in values.items()
        for k, (value, low, high) in zip((1, 3), cells, strict=True)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def text():
    return k_shot_table(
        curve(
            ours=[(9.5, 0, 0), (8.25, 0, 0)],
            mean=[(10.0, 0.2, 0.8), (8.0, -0.5, -0.1)],
            last=[(11.0, -0.2, 0.9), (9.0, np.nan, np.nan)],
        ),
        reference="ours",
        unit="mg/dL",
    )


def test_the_reference_is_the_last_row_and_has_no_interval(text):
    rows = [line.split()[0] for line in text.splitlines()]
    assert rows[0] == "rmse_macro"
    assert rows[2:5] == ["mean", "last", "ours"]
    assert "to" not in text.splitlines()[4]


def test_a_star_marks_exactly_the_intervals_without_zero(text):
    lines = {line.split()[0]: line for line in text.splitlines()}
    assert lines["mean"].count("*") == 2
    assert "*" not in lines["last"]


def test_columns_are_aligned_and_counts_are_shown(text):
    lines = text.splitlines()
    first, second = lines[0].index("k = 1"), lines[0].index("k = 3")
    assert [line[first : first + 5].strip() for line in lines[2:5]] == ["10.00", "11.00", "9.50"]
    assert [line[second : second + 5].strip() for line in lines[2:5]] == ["8.00", "9.00", "8.25"]
    assert lines[-2].split() == ["patients", "scored", "1,199", "1,197"]
    assert lines[-1].split()[-2:] == ["1", "3"]
    assert all(line == line.rstrip() for line in lines)


def test_small_values_keep_their_digits():
    text = k_shot_table(curve(ours=[(0.0123, 0, 0), (0.011, 0, 0)]), reference="ours")
    assert "0.01230" in text
