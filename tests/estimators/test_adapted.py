"""An audit record says that and how a model was used, and nothing about whom."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ehrmeta.errors import DataError
from tests.estimators.patients import make_patients, small_model


@pytest.fixture(scope="module")
def fitted():
    X, y, groups, time = make_patients(n_patients=30)
    return small_model(max_steps=5).fit(X, y, groups=groups, time=time)


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


def test_a_record_that_cannot_be_written_is_an_error(fitted, tmp_path):
    X, y, groups, time = make_patients(n_patients=4, seed=1)
    with pytest.raises(DataError, match="audit record cannot be written"):
        fitted.adapt(X, y, groups=groups, time=time).add_audit_record(tmp_path / "none" / "a.jsonl")
