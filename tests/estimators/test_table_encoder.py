"""Encoded rows are those of the table; what was fitted comes back from its state."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from ehrmeta.data import Feature, OutcomeScale, Schema
from ehrmeta.errors import DataError, DataWarning, SchemaError
from ehrmeta.estimators.inputs import read_inputs
from ehrmeta.estimators.table_encoder import Classes, TableEncoder

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
