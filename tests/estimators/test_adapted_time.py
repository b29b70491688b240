"""What adapted tasks make of the times of their queries."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from ehrmeta.data import Clock, Feature, Schema
from ehrmeta.errors import DataWarning
from tests.estimators.patients import small_model


@pytest.fixture
def adapted(model, halves):
    support, _ = halves
    return model.adapt(support.X, support.y, groups=support.groups, time=support.time)


def test_later_rows_are_predicted_in_silence(adapted, halves):
    _, query = halves
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        adapted.predict(query.X, groups=query.groups, time=query.time)
    assert not said


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_rows_not_after_the_support_are_counted_and_named(adapted, halves, shift):
    support, query = halves
    time = query.time.copy()
    last = support.time.max()
    time[[4, 7]] = last - shift
    task = np.unique(query.groups).tolist().index(query.groups[4])
    pattern = rf"2 of {len(time)} rows \(first: row 4, of task {task} of 20\) are not later"
    with pytest.warns(DataWarning, match=pattern):
        adapted.predict(query.X, groups=query.groups, time=time)
    with pytest.warns(DataWarning, match=pattern):
        adapted.own_weight(query.X, groups=query.groups, time=time)


def test_nobodys_rows_lie_before_nothing(model, adapted, halves):
    _, query = halves
    early, new = query.time - 1e6, query.groups + 5000
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        expected = model.predict(query.X, time=early)
        found = adapted.predict(query.X, groups=new, time=early, new_groups="population")
    assert not said
    np.testing.assert_array_equal(found, expected)


def test_dates_count_from_the_origin_that_the_schema_names(patients, halves):
    X, y, groups, time = patients
    features = (Feature("age"), Feature("sex", kind="categorical"))
    schema = Schema(features, time=Clock("day", origin="2020-01-01"))
    fitted = small_model(max_steps=10, schema=schema).fit(X, y, groups=groups, time=time)
    dates = pd.Timestamp("2020-01-01") + pd.to_timedelta(time[:6], unit="D")
    np.testing.assert_array_equal(
        fitted.predict(X[:6], time=dates), fitted.predict(X[:6], time=time[:6])
    )
