"""Adapted tasks: the times of their queries, and records of what was adapted."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest

from ehrmeta.data import Clock, Feature, Schema
from ehrmeta.errors import DataError, DataWarning
from tests.estimators.patients import make_patients, small_model


@pytest.fixture(scope="module")
def fitted():
    X, y, groups, time = make_patients(n_patients=30)
    return small_model(max_steps=5).fit(X, y, groups=groups, time=time)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("EHRMETA_AUDIT_KEY", "a key of 16 bytes or more")


def _records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_adaptation_adds_one_record(fitted, tmp_path):
    X, y, groups, time = make_patients(n_patients=4, seed=1)
    path = tmp_path / "audit.jsonl"
    for rows in (slice(None), slice(None), slice(0, 6)):
        fitted.adapt(X[rows], y[rows], groups=groups[rows], time=time[rows]).add_audit_record(path)
    first, again, one = _records(path)
    assert (first["n_tasks"], first["n_rows"], one["n_tasks"], one["n_rows"]) == (4, 24, 1, 6)
    assert first["output"] == again["output"] != one["output"]
    assert first["model"] == one["model"]
    assert first["time"] <= again["time"]


@pytest.mark.filterwarnings("ignore:levels of")
def test_other_rows_or_another_model_give_other_digests(fitted, tmp_path):
    X, y, groups, time = make_patients(n_patients=4, seed=1)
    path = tmp_path / "audit.jsonl"
    other = small_model(max_steps=5, random_state=5).fit(X, y, groups=groups, time=time)
    for model, outcome in ((fitted, y), (fitted, y + 1e-3), (other, y)):
        model.adapt(X, outcome, groups=groups, time=time).add_audit_record(path)
    records = _records(path)
    assert len({record["output"] for record in records}) == 3
    assert records[0]["model"] == records[1]["model"] != records[2]["model"]


def test_no_value_and_no_label_is_written(fitted, tmp_path):
    X, y, _, time = make_patients(n_patients=4, seed=1)
    groups = np.repeat(["canary-a", "canary-b", "canary-c", "canary-d"], 6)
    path = tmp_path / "audit.jsonl"
    fitted.adapt(X, y, groups=groups, time=time).add_audit_record(path)
    text = path.read_text()
    assert "canary" not in text
    assert not any(repr(float(value)) in text for value in (*y, *X.age))


def test_without_a_key_a_record_holds_no_digest(fitted, tmp_path, monkeypatch):
    monkeypatch.delenv("EHRMETA_AUDIT_KEY")
    X, y, groups, time = make_patients(n_patients=4, seed=1)
    path = tmp_path / "audit.jsonl"
    fitted.adapt(X, y, groups=groups, time=time).add_audit_record(path)
    assert set(_records(path)[0]) == {"time", "n_tasks", "n_rows"}


def test_a_record_that_cannot_be_written_is_an_error(fitted, tmp_path):
    X, y, groups, time = make_patients(n_patients=4, seed=1)
    with pytest.raises(DataError, match="audit record cannot be written"):
        fitted.adapt(X, y, groups=groups, time=time).add_audit_record(tmp_path / "none" / "a.jsonl")


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
    early, new = query.time - 200, query.groups + 5000
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
