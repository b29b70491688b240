"""The k-shot protocol: who is adapted to what, and judged on which rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ehrmeta import (
    ConformalClassifier,
    ConformalRegressor,
    KShotScorer,
    MetaClassifier,
    MetaRegressor,
)
from ehrmeta.baselines import LastValue, MixedEffects, TaskMean
from ehrmeta.errors import DataError, DataWarning
from ehrmeta.estimators.inputs import read_inputs
from ehrmeta.estimators.k_shot_protocol import (
    adapt_to_rows,
    drop_unscored_tasks,
    k_shot_splits,
    shots_to_score,
)
from ehrmeta.evaluation import k_shot_class_curve, k_shot_curve
from ehrmeta.report import forecast_report, risk_report

GROUPS = np.array([1, 1, 1, 1, 2, 2, 3])
TIME = np.array([0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 0.0])
Y = np.array([1.0, 2.0, 3.0, 4.0, 10.0, 20.0, 5.0])
X = np.zeros((7, 1))


def test_the_first_rows_are_the_support_and_the_later_ones_the_query():
    inputs = read_inputs(X, Y, groups=GROUPS, time=TIME)
    splits = {k: (support, query) for k, support, query in k_shot_splits(inputs, (0, 1, 3, 9))}
    assert list(splits) == [0, 1, 3], "no task has more than nine rows"
    assert splits[0][1].all()
    assert Y[splits[1][0]].tolist() == [1.0, 10.0]
    assert Y[splits[1][1]].tolist() == [2.0, 3.0, 4.0, 20.0]
    assert Y[splits[3][1]].tolist() == [4.0]


def test_no_query_row_is_known_before_the_support():
    inputs = read_inputs(X, Y, groups=GROUPS, time=TIME)
    known = TIME + 1.5  # outcomes come late
    ((_, support, query),) = k_shot_splits(inputs, (1,), outcome_time=known)
    assert Y[query].tolist() == [3.0, 4.0]
    assert Y[support].tolist() == [1.0], "the second task has no row left to judge"


def test_without_time_the_support_is_random_and_all_others_are_scored():
    inputs = read_inputs(X, Y, groups=GROUPS)
    ((_, support, query),) = k_shot_splits(inputs, (1,))
    assert np.bincount(GROUPS[support]).tolist() == [0, 1, 1]
    np.testing.assert_array_equal(support | query, GROUPS < 3)


def test_tasks_without_a_query_row_are_left_out():
    tasks = read_inputs(X, Y, groups=GROUPS, time=TIME).tasks()
    query = (GROUPS == 1) & (TIME > 1)
    np.testing.assert_array_equal(drop_unscored_tasks(tasks, ~query, query), (GROUPS == 1) & ~query)


@pytest.mark.filterwarnings("ignore:2 of 3 tasks")
@pytest.mark.parametrize("k", [0, 1, 2])
def test_each_task_is_predicted_from_its_support(k):
    model = LastValue().fit(X, Y, groups=GROUPS, time=TIME)
    inputs = model.model_.read(X, Y, groups=GROUPS, time=TIME)
    ((_, support, query),) = k_shot_splits(inputs, (k,))
    adapted, rows = adapt_to_rows(model, X, inputs, support, query)
    last = {0: {1: Y.mean(), 2: Y.mean(), 3: Y.mean()}, 1: {1: 1.0, 2: 10.0}, 2: {1: 2.0}}[k]
    expected = [last[group] for group in GROUPS[query]]
    np.testing.assert_allclose(adapted.predict(**rows), expected, rtol=1e-6)


def test_anything_with_adapt_and_predict_will_do():
    class Constant:
        def adapt(self, X, y, *, groups):
            return TaskMean().fit(X, y, groups=groups)

        def predict(self, X):
            return np.ones(len(X))

    inputs = read_inputs(X, Y, groups=GROUPS)
    nothing = np.zeros(7, dtype=bool)
    adapted, rows = adapt_to_rows(Constant(), X, inputs, nothing, ~nothing)
    assert adapted.predict(**rows).tolist() == [1.0] * 7


@pytest.fixture(scope="module")
def trained():
    """A regressor and a classifier, and the table of both."""
    rng = np.random.default_rng(0)
    groups, time = np.repeat(np.arange(24), 5), np.tile(np.arange(5.0), 24)
    X, y = rng.normal(size=(120, 1)), rng.normal(size=24)[groups] + rng.normal(size=120)
    settings = {"max_steps": 1, "random_state": 0, "verbose": False, "known": ["x0"]}
    rows = {"groups": groups, "time": time}
    numbers = MetaRegressor(**settings).fit(X, y, **rows)
    classes = MetaClassifier(**settings).fit(X, y > 0, **rows)
    return numbers, classes, {"X": X, "y": y, **rows}


JUDGES = {
    "k_shot_curve": (k_shot_curve, False),
    "k_shot_class_curve": (k_shot_class_curve, True),
    "forecast_report": (forecast_report, False),
    "risk_report": (risk_report, True),
    "ConformalRegressor": (ConformalRegressor, False),
    "ConformalClassifier": (ConformalClassifier, True),
}


@pytest.mark.parametrize("name", JUDGES)
def test_no_model_is_scored_on_its_training_table_unless_allowed(trained, name):
    numbers, classes, rows = trained
    judge, of_classes = JUDGES[name]
    model = classes if of_classes else numbers
    given = {**rows, "y": rows["y"] > 0} if of_classes else rows

    def call(**more):
        if name.startswith("Conformal"):
            return judge(model, shots=(1,)).calibrate(**given, **more)
        if name.endswith("report"):
            return judge(model, **given, shots=(1,), **more)
        return judge({"m": model}, **given, shots=(1,), n_bootstrap=10, **more)

    with pytest.raises(DataError, match="trained on this very table.*allow_training_table=True"):
        call()
    assert call(allow_training_table=True) is not None
    given = {**given, "y": given["y"][::-1]}
    assert call() is not None, "another table"


def test_estimators_and_searches_still_score_training_rows(trained):
    numbers, _, rows = trained
    assert KShotScorer(shots=(1,))(numbers, **rows) < 0
    assert numbers.score(**rows) < 1


def test_usual_sizes_are_those_that_half_of_the_tasks_exceed():
    tasks = read_inputs(X, groups=GROUPS).tasks()  # 4, 2 and 1 rows
    assert shots_to_score(tasks, None, (0,)) == (0,)
    with pytest.warns(DataWarning, match=r"shots \[2, 3\] are not .* 3 tasks .*has 4\)") as caught:
        assert shots_to_score(tasks, None, (0, 1, 2, 3)) == (0, 1)
    assert caught[0].filename == __file__
    with pytest.warns(DataWarning, match="are not scored"):
        assert shots_to_score(tasks, None, (5,)) == (0,)
    assert shots_to_score(tasks, (0, 3), (1,)) == (0, 3)
    with pytest.raises(DataError, match="none of 3 tasks has a row after the first 4"):
        shots_to_score(tasks, (1, 4), (1,))
    even = read_inputs(X[:4], groups=[1, 1, 2, 3]).tasks()
    with pytest.warns(DataWarning):
        assert shots_to_score(even, None, (0, 1)) == (0,)
    half = read_inputs(X[:6], groups=[1, 1, 2, 2, 3, 4]).tasks()
    assert shots_to_score(half, None, (0, 1)) == (0, 1)


def test_splits_leave_out_sizes_without_a_query_row():
    inputs = read_inputs(X, Y, groups=GROUPS, time=TIME)
    assert [k for k, _, _ in k_shot_splits(inputs, (0, 3, 4, 9))] == [0, 3]
    first = read_inputs(X, Y, groups=GROUPS)
    for splits in zip(k_shot_splits(first, (1,)), k_shot_splits(first, (1,)), strict=True):
        np.testing.assert_array_equal(splits[0][1], splits[1][1])


def test_rows_of_both_sides_are_passed_with_what_the_table_has():
    seen = []

    class Model:
        """Records the call of adapt."""

        def adapt(self, X, y, **rows):
            seen.append((X, y, rows))
            return self

    inputs = read_inputs(X, Y, groups=GROUPS)
    support = np.arange(7) < 2
    adapted, rows = adapt_to_rows(Model(), X, inputs, support, ~support)
    assert seen[0][1].tolist() == [1.0, 2.0]
    assert seen[0][2].keys() == {"groups"}
    assert rows.keys() == {"X", "groups"}
    assert len(rows["X"]) == 5
    model = Model()
    same, rows = adapt_to_rows(model, X, inputs, np.zeros(7, bool), ~support)
    assert same is model
    assert rows.keys() == {"X"}


def test_warnings_of_scored_rows_are_given_once_and_point_to_the_call():
    rng = np.random.default_rng(0)
    groups, day = np.repeat(np.arange(30), 4), np.tile(np.arange(4.0), 30)
    y = rng.normal(size=30)[groups] + rng.normal(size=120)
    frame = pd.DataFrame({"sex": np.repeat(np.tile(["f", "m"], 15), 4)})
    model = MixedEffects(known=["sex"]).fit(frame, y + 1.0, groups=groups, time=day)
    odd = frame.assign(sex=np.where(groups == 0, "x", frame["sex"]))
    with pytest.warns(DataWarning, match="unknown level") as caught:
        k_shot_curve({"mixed": model}, odd, y, groups=groups, time=day, shots=(1, 2), n_bootstrap=2)
    assert len([one for one in caught if "unknown level" in str(one.message)]) == 1
