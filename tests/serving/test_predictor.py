"""Answers to requests: one batch gives the numbers of Python, and so do its errors."""

import dataclasses
import json
import warnings

import numpy as np
import pandas as pd
import pytest

import ehrmeta
from ehrmeta import ConformalRegressor, MetaClassifier, MetaRegressor, Table
from ehrmeta.errors import DataError, EhrmetaError
from ehrmeta.serving.predictor import Predictor
from ehrmeta.serving.requests import Limits, Request


def request_of(frame, predictor, shots=3, **settings):
    """First rows of every patient as support, two more as query."""
    visit = frame.groupby("patient").cumcount()
    rows = [frame[visit < shots], frame[(visit >= shots) & (visit < shots + 2)].drop(columns="hdl")]
    support, query = (json.loads(part.to_json(orient="records")) for part in rows)
    body = {"support": support, "query": query, **settings}
    return Request.from_json(json.dumps(body).encode(), predictor.schema, Limits())


def in_python(request, predictor):
    frame = pd.DataFrame([*request.support, *request.query])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scored = ehrmeta.score_partition(
            frame, predictor.model, confidence_level=request.confidence_level
        )
    return scored.drop(columns=["task", "time"], errors="ignore")


def check(answers, requests, predictor):
    for answer, request in zip(answers, requests, strict=True):
        assert not isinstance(answer, EhrmetaError)
        expected = in_python(request, predictor)
        assert set(answer.columns) == {"task", "time", *expected}
        for name in expected:
            if expected[name].dtype.kind == "f":
                np.testing.assert_allclose(answer.columns[name], expected[name], rtol=2e-5)
            else:
                assert answer.columns[name] == expected[name].tolist()


def is_batched(request, predictor):
    """Whether a request is computed with others."""
    alone, predictor._alone = predictor._alone, lambda _: None
    try:
        return predictor.answer([request]) != []
    finally:
        predictor._alone = alone


@pytest.fixture(scope="module")
def predictor(model):
    return Predictor(model)


@pytest.fixture(scope="module")
def patients(visits):
    return [rows for _, rows in visits[visits["patient"] >= 60].groupby("patient")]


def test_requests_of_one_and_many_patients_in_one_batch(predictor, patients):
    requests = [
        request_of(patients[0], predictor),
        request_of(pd.concat(patients[1:4]), predictor, shots=5),
        request_of(patients[4], predictor, shots=0),
        request_of(patients[5], predictor, confidence_level=0.5),
    ]
    assert all(is_batched(request, predictor) for request in requests)
    check(predictor.answer(requests), requests, predictor)


def test_a_request_of_one_patient_needs_no_id(predictor, patients):
    with_id = request_of(patients[0], predictor)
    support, query = (
        [{name: cell for name, cell in row.items() if name != "patient"} for row in rows]
        for rows in (with_id.support, with_id.query)
    )
    with_id, without = predictor.answer(
        [with_id, dataclasses.replace(with_id, support=support, query=query)]
    )
    assert without.columns["task"] == [None, None]
    np.testing.assert_allclose(without.columns["mean"], with_id.columns["mean"], rtol=1e-6)


def test_what_python_warns_of_is_told(predictor, patients):
    request = request_of(patients[0], predictor)
    changes = {
        "unknown level": ("sex", "x"),
        "not later than the last row": ("day", request.support[0]["day"]),
        "far outside the training period": ("day", 1e5),
    }
    for message, (name, cell) in changes.items():
        query = [{**request.query[0], name: cell}]
        odd = dataclasses.replace(request, query=query)
        assert not is_batched(odd, predictor)
        answers = predictor.answer([request, odd])
        assert answers[0].warnings == []
        assert any(message in warning for warning in answers[1].warnings)
        check(answers[1:], [odd], predictor)


def test_an_atypical_support_is_told(predictor, patients):
    request = request_of(patients[0], predictor)
    support = [{**row, "hdl": 300.0} for row in request.support]
    odd = dataclasses.replace(request, support=support)
    answers = predictor.answer([odd, request])
    assert "unlike the training tasks" in answers[0].warnings[0]
    assert answers[1].warnings == []
    check(answers, [odd, request], predictor)


@pytest.mark.parametrize(
    ("side", "name", "cell"),
    [
        ("support", "hdl", "high"),
        ("support", "day", None),
        ("support", "day", "yesterday"),
        ("support", "crp", "much"),
        ("query", "day", 1e300),
        ("query", "patient", None),
        ("query", "patient", "a"),
        ("support", "patient", 1.5),
    ],
)
def test_an_error_is_that_of_python_and_of_one_request_only(predictor, patients, side, name, cell):
    request = request_of(patients[0], predictor)
    rows = getattr(request, side)
    broken = dataclasses.replace(request, **{side: [{**rows[0], name: cell}, *rows[1:]]})
    answers = predictor.answer([request, broken])
    check(answers[:1], [request], predictor)
    try:
        in_python(broken, predictor)
    except EhrmetaError as error:
        assert str(answers[1]) == str(error)
    else:
        check(answers[1:], [broken], predictor)


def test_classes_and_dates(visits):
    dated = visits.assign(
        day=(pd.Timestamp("2020-01-01") + pd.to_timedelta(visits["day"].round(), "D")).dt.strftime(
            "%Y-%m-%d"
        )
    )
    high = np.where(visits["hdl"] > 50, "high", "low").astype(object)
    table = Table.from_frame(
        dated.assign(hdl=(high == "high") * 1.0),
        task="patient",
        time="day",
        outcome="hdl",
        measured=["crp"],
    )
    model = MetaClassifier(max_steps=2, random_state=0)
    predictor = Predictor(model.fit(table.X, high, groups=table.groups, time=table.time))
    rows = dated.assign(hdl=high)[dated["patient"] >= 60]
    requests = [request_of(part, predictor) for _, part in rows.groupby("patient")]
    batched = [is_batched(request, predictor) for request in requests]
    assert sum(batched) > 10
    check(predictor.answer(requests), requests, predictor)
    wrong = dataclasses.replace(requests[0], support=[{**requests[0].support[0], "hdl": "medium"}])
    (error,) = predictor.answer([wrong])
    assert isinstance(error, DataError)
    assert "none of the 2 classes" in str(error)


@pytest.mark.filterwarnings("ignore")
def test_calibrated_intervals(model, visits, patients):
    table = Table.from_frame(visits.assign(hdl=visits["hdl"] + 1.0), model.schema_)
    calibrated = ConformalRegressor(model, shots=(1, 3))
    calibrated.calibrate(table.X, table.y, groups=table.groups, time=table.time)
    predictor = Predictor(calibrated)
    requests = [request_of(patients[i], predictor) for i in range(3)]
    check(predictor.answer(requests), requests, predictor)


def test_a_model_without_time(visits):
    table = Table.from_frame(
        visits[["patient", "sex", "hdl"]], task="patient", outcome="hdl", on_duplicate="allow"
    )
    model = MetaRegressor(max_steps=2, outcome_transform=None, random_state=0)
    predictor = Predictor(model.fit(table.X, table.y, groups=table.groups))
    request = request_of(visits[visits["patient"] == 60][["patient", "sex", "hdl"]], predictor)
    assert is_batched(request, predictor)
    (answer,) = predictor.answer([request])
    np.testing.assert_allclose(
        answer.columns["mean"], in_python(request, predictor)["mean"], rtol=1e-5
    )
    assert "time" not in answer.columns
