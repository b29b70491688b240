"""Encoded rows are those of the table; what was fitted comes back from its state."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from ehrmeta.baselines import MixedEffects
from ehrmeta.data import Clock, Feature, OutcomeScale, Schema
from ehrmeta.errors import DataError, DataWarning, SchemaError
from ehrmeta.estimators.inputs import read_inputs
from ehrmeta.estimators.table_encoder import Classes, TableEncoder
from tests.estimators.patients import make_patients

pytestmark = pytest.mark.filterwarnings("ignore:levels of too few patients")
X = pd.DataFrame({"age": [40.0, 50.0, 60.0, 70.0], "sex": ["f", "m", "m", "f"]})
Y, GROUPS, TIME = [1.0, 3.0, 5.0, 7.0], ["b", "b", "a", "a"], [4.0, 2.0, 0.0, 6.0]


def encoder(schema: Schema | None = None) -> tuple[TableEncoder, object]:
    inputs = read_inputs(X, Y, groups=GROUPS, time=TIME)
    known = None if schema else ["age", "sex"]
    return TableEncoder.fit(inputs, schema, OutcomeScale.fit(inputs.y, None, "y"), known), inputs


def test_rows_are_sorted_by_task_and_time_and_know_where_they_were():
    table, inputs = encoder()
    tasks = inputs.tasks()
    rows = table.rows(inputs, tasks.codes, tasks.n_tasks)
    assert rows.origin.tolist() == [2, 3, 1, 0]
    assert rows.time.tolist() == [0.0, 6.0, 2.0, 4.0]
    np.testing.assert_allclose(
        table.outcome.inverse(rows.y.numpy()), [5.0, 7.0, 3.0, 1.0], rtol=1e-6
    )


def test_the_time_unit_is_the_median_gap_between_a_tasks_visits():
    assert encoder()[0].time_unit == 4.0  # gaps of 2 and 6


def test_it_comes_back_from_json_as_it_was():
    table, inputs = encoder()
    again = TableEncoder.from_dict(json.loads(json.dumps(table.to_dict())))
    codes = inputs.tasks().codes
    before, after = (t.rows(inputs, codes, 2) for t in (table, again))
    for name in ("x", "measured", "time", "y", "origin"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    assert (again.timed, again.time_unit, again.features) == (True, 4.0, table.features)


def test_levels_of_few_patients_are_shrunk_but_for_the_rows_of_the_fit():
    rng = np.random.default_rng(0)
    groups, arm = np.repeat(np.arange(27), 4), np.repeat(np.tile(list("abc"), 9), 4)
    y = rng.normal(0, 1, 27)[groups] + rng.normal(0, 1, 108)
    weights = []
    for effect in (0.0, 10.0):
        inputs = read_inputs(pd.DataFrame({"arm": arm}), y + effect * (arm == "c"), groups=groups)
        table = TableEncoder.fit(inputs, None, OutcomeScale.fit(inputs.y, None, "y"))
        fit, later = (
            table.rows(inputs, inputs.tasks().codes, 27, of_fit=of_fit).x
            for of_fit in (True, False)
        )
        np.testing.assert_array_equal(fit[:, :3], np.eye(3)[np.repeat(np.tile([0, 1, 2], 9), 4)])
        weights.append(table.encoder.codings[0].weights[0])
        share = (1 - weights[-1]) / 3
        assert later[:4, 0].tolist() == pytest.approx([weights[-1] + share] * 4)
    assert weights[0] < 0.95, "where levels differ they are shrunk less"
    assert 0.99 < weights[1] < 1


def test_implausible_values_are_missing_and_counted():
    schema = Schema((Feature("age", low=0, high=65), Feature("sex", "categorical")))
    with pytest.warns(DataWarning, match=r"'age': 1 \(range 0 to 65\)"):
        table, inputs = encoder(schema)
    missing = inputs.columns | {"age": np.array([40.0, 50.0, 60.0, np.nan])}
    codes = inputs.tasks().codes
    with pytest.warns(DataWarning, match="plausible range"):
        masked = table.rows(inputs, codes, 2)
    named = table.rows(type(inputs)(missing, inputs.y, inputs.groups, inputs.time, 4), codes, 2)
    np.testing.assert_array_equal(masked.x, named.x)


def test_a_schema_of_other_columns_is_refused():
    with pytest.raises(SchemaError, match=r"missing \['weight'\], not in the schema \['sex'\]"):
        encoder(Schema((Feature("age"), Feature("weight"))))


@pytest.mark.parametrize("labels", [["no", "yes"], [0, 1], [-1.0, 2.0], [False, True]], ids=str)
def test_classes_are_sorted_numbers_and_keep_their_type(labels):
    y = np.array(labels[::-1], dtype=object if isinstance(labels[0], str) else None)
    classes = Classes.fit(y)
    assert classes.forward(y).tolist() == [1.0, 0.0]
    again = Classes.from_dict(json.loads(json.dumps(classes.to_dict())))
    assert (again.labels.tolist(), again.labels.dtype) == (labels, y.dtype)


def test_classes_of_a_type_without_bound_are_refused():
    with pytest.raises(DataError, match="class labels cannot have type '<U9'"):
        Classes.from_dict({"labels": ["a", "b"], "dtype": "<U9"})


def fitted(time=None, groups=GROUPS, schema=None, **columns):
    """An encoder of numbers, and its inputs."""
    inputs = read_inputs(pd.DataFrame(columns or {"age": X.age}), Y, groups=groups, time=time)
    known = None if schema else list(columns) or ["age"]
    return TableEncoder.fit(inputs, schema, OutcomeScale.fit(inputs.y), known), inputs


def test_the_clock_is_centred_and_its_period_rounded_outwards():
    table, _ = fitted(TIME)
    assert (table.time_center, table.time_scale) == (np.mean(TIME), np.std(TIME))
    first, last = ((end - np.mean(TIME)) / np.std(TIME) for end in table.period)
    assert (first, last) == (np.floor(-3 / np.std(TIME)), np.ceil(3 / np.std(TIME)))
    still, _ = fitted([5.0] * 4, groups=list("abcd"))
    assert (still.time_unit, still.time_scale, still.period) == (1.0, 1.0, (5.0, 5.0))
    repeated, _ = fitted([1.0, 1.0, 2.0, 5.0])
    assert repeated.time_unit == 3.0  # a gap of 0 is none
    untimed, _ = fitted()
    assert (untimed.timed, untimed.period, untimed.clock_is_feature) == (False, None, False)
    assert (untimed.time_unit, untimed.time_center, untimed.time_scale) == (1.0, 0.0, 1.0)
    assert TableEncoder.from_dict(untimed.to_dict()).period is None


def test_the_clock_is_a_feature_within_eight_standard_deviations():
    table, inputs = fitted(TIME)
    codes = inputs.tasks().codes
    rows = table.rows(inputs, codes, 2)
    standard = (np.sort(TIME)[[0, 3, 1, 2]] - 3.0) / np.std(TIME)
    np.testing.assert_allclose(rows.x[:, -1], standard, rtol=1e-6)
    far = read_inputs(pd.DataFrame({"age": X.age}), time=[1e9, -1e9, 0.0, 0.0])
    ends = table.rows(far, np.zeros(4, np.int64), 1)
    assert sorted({-8.0, 8.0} & set(ends.x[:, -1].tolist())) == [-8.0, 8.0]
    assert ends.y.isnan().all()
    schema = Schema((Feature("age"),), time=Clock("day", is_feature=False))
    hidden, inputs = fitted(TIME, schema=schema)
    assert not hidden.clock_is_feature
    assert hidden.rows(inputs, codes, 2).x.shape[1] == rows.x.shape[1] - 1


def test_columns_that_vary_within_tasks_are_measured_unless_they_are_known():
    inputs = read_inputs(X, Y, groups=GROUPS, time=TIME)
    outcome = OutcomeScale.fit(inputs.y)
    with pytest.warns(DataWarning, match="age"):
        table = TableEncoder.fit(inputs, None, outcome)
    assert [feature.role for feature in table.features] == ["measured", "measured"]
    known = TableEncoder.fit(inputs, None, outcome, ["age"])
    assert [feature.role != "measured" for feature in known.features] == [True, False]
    untimed = read_inputs(X, Y, groups=GROUPS)
    table = TableEncoder.fit(untimed, None, outcome)
    assert "measured" not in {feature.role for feature in table.features}
    with pytest.raises(SchemaError, match="weight"):
        TableEncoder.fit(inputs, None, outcome, ["weight"])


def test_known_columns_that_the_schema_measures_are_warned_of():
    schema = Schema((Feature("age", role="measured"),), time=Clock("day"))
    inputs = read_inputs(X[["age"]], Y, groups=GROUPS, time=TIME)
    with pytest.warns(DataWarning, match=r"\['age'\] of known= are measured"):
        TableEncoder.fit(inputs, schema, OutcomeScale.fit(inputs.y), ["age"])


@pytest.mark.parametrize(("low", "high", "n_outside"), [(0, 65, 1), (45, None, 1), (None, 55, 2)])
def test_one_end_of_a_range_is_enough_and_ends_are_inside(low, high, n_outside):
    schema = Schema((Feature("age", low=low, high=high),))
    with pytest.warns(DataWarning, match=rf"'age': {n_outside} \(range {low} to {high}\)"):
        fitted(schema=schema)
    assert fitted(schema=Schema((Feature("age", low=40, high=70),)))


def test_dates_and_zones_are_remembered():
    days = pd.date_range("2020-01-01", periods=4, tz="UTC")
    zoned, _ = fitted(days)
    plain, _ = fitted(days.tz_localize(None))
    assert [(one.dated, one.zoned) for one in (zoned, plain)] == [(True, True), (True, False)]
    assert fitted(TIME)[0].dated is False


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.array([0.5, 1.5, 2.25]), "Use MetaRegressor for real-valued outcomes"),
        (np.array([1.0, 1.0]), "only one class in all 2 rows"),
    ],
)
def test_outcomes_that_are_no_classes_are_refused(y, message):
    with pytest.raises(DataError, match=message):
        Classes.fit(y)


def test_classes_unseen_at_fit_are_counted():
    classes = Classes.fit(np.array([1, 3, 3]))
    assert classes.forward(np.array([])).tolist() == []
    with pytest.raises(DataError, match=r"in 2 of 3 rows \(first: row 1\); the model knows 2"):
        classes.forward(np.array([1, 2, 9]))
    with pytest.raises(DataError, match="classes were numbers at fit"):
        classes.forward(np.array(["a"], dtype=object))
    words = Classes.fit(np.array(["a", "b"], dtype=object))
    with pytest.raises(DataError, match="classes were text at fit"):
        words.forward(np.array([1.0]))


def test_encoders_and_classes_cannot_be_changed():
    assert TableEncoder.__dataclass_params__.frozen
    settings = Classes.__dataclass_params__
    assert (settings.frozen, settings.eq) == (True, False)


def test_levels_are_shrunk_by_patients_but_not_by_cohorts():
    rng = np.random.default_rng(0)
    groups, arm = np.repeat(np.arange(27), 4), np.repeat(np.tile(list("abc"), 9), 4)
    inputs = read_inputs(pd.DataFrame({"arm": arm}), rng.normal(size=108), groups=groups)
    least = {}
    for kind in ("patient", "cohort"):
        schema = Schema((Feature("arm", kind="categorical"),), task_kind=kind)
        table = TableEncoder.fit(inputs, schema, OutcomeScale.fit(inputs.y))
        least[kind] = min(table.encoder.codings[0].weights[:3], default=1.0)
    assert least["patient"] < 0.95
    assert least["cohort"] == 1.0


def test_warnings_of_columns_point_to_the_fit():
    X, y, groups, time = make_patients(n_patients=40)
    X = X.assign(lab=np.random.default_rng(0).normal(100.0, 10.0, len(y)))
    X.loc[::20, "lab"] = 9999.0
    with pytest.warns(DataWarning) as caught:
        MixedEffects().fit(X, y, groups=groups, time=time)
    messages = " ".join(str(one.message) for one in caught)
    assert "9999" not in messages or "lab" in messages
    assert len(caught) >= 2  # of a code for missing values, and of a column that varies
    assert {one.filename for one in caught} == {__file__}


@pytest.mark.parametrize(("n_classes", "sees_effects"), [(2, True), (3, False)])
def test_levels_are_shrunk_by_their_effects_on_two_classes(n_classes, sees_effects):
    rng = np.random.default_rng(0)
    groups, arm = np.repeat(np.arange(27), 4), np.repeat(np.tile(list("abc"), 9), 4)
    weights = []
    for effect in (0.0, 0.9):
        y = (rng.random(108) < 0.05 + effect * (arm == "c")).astype(int)
        y[:n_classes] = np.arange(n_classes)
        inputs = read_inputs(pd.DataFrame({"arm": arm}), y, groups=groups)
        table = TableEncoder.fit(inputs, None, Classes.fit(inputs.y))
        weights.append(table.encoder.codings[0].weights[0])
    assert (weights[1] > weights[0]) == sees_effects
