"""Bodies of requests: what is refused, and that no message holds a value."""

import json

import numpy as np
import pytest

from ehrmeta import Clock, Feature, Outcome, Schema
from ehrmeta.errors import DataError
from ehrmeta.serving.requests import Limits, Request, numbers, texts

SCHEMA = Schema((Feature("sex", "categorical"),), Outcome("hdl"), task="patient", time=Clock("day"))
SECRET = "Mrs Secret"


def parse(body):
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request.from_json(text, SCHEMA, Limits(n_rows=3))


def test_a_request_holds_support_and_query():
    request = parse({"support": [{"day": 0, "hdl": 50}], "query": [{"day": 1}]})
    assert (request.support, request.query) == ([{"day": 0, "hdl": 50}], [{"day": 1}])
    assert request.confidence_level == 0.9


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\xff", "not valid JSON"),
        (b'{"query": [', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"query": [{"day": 1' + b"0" * 5000 + b"}]}", "not valid JSON"),
        (b'{"query": [{"day": NaN}]}', "Write null"),
        ([SECRET], "must be an object"),
        ({SECRET: 1, "query": [{}]}, "1 unknown keys"),
        ({"support": [{"hdl": 1}]}, "'query' has no rows"),
        ({"query": {"day": SECRET}}, "'query' must be a list of objects"),
        ({"query": [SECRET]}, "'query' must be a list of objects"),
        ({"query": [{"day": 1}] * 4}, "4 rows; the limit is 3"),
        ({"query": [{SECRET: 1}]}, "row 0 of 'query' has 1 columns that the model does not know"),
        ({"query": [{"day": [SECRET]}]}, "row 0 of 'query' has a cell that is no value"),
        ({"query": [{"day": 2**63}]}, "row 0 of 'query' has a whole number of more than 63 bits"),
        ({"query": [{}, {"hdl": SECRET}]}, "row 1 of 'query' has a value of 'hdl'"),
        ({"support": [{"hdl": None}], "query": [{}]}, "row 0 of 'support' has no 'hdl'"),
        ({"query": [{}], "confidence_level": 1}, "between 0 and 1"),
        ({"query": [{}], "confidence_level": SECRET}, "between 0 and 1"),
        ({"query": [{}], "confidence_level": True}, "between 0 and 1"),
    ],
)
def test_bodies_of_another_form_are_refused_without_their_values(body, message):
    with pytest.raises(DataError, match=message) as caught:
        parse(body)
    assert SECRET not in str(caught.value)


def test_columns_are_numbers_or_known_levels_or_nothing():
    rows = [{"a": 1, "b": "m"}, {"a": None, "b": "f"}]
    np.testing.assert_array_equal(numbers(rows, "a"), [1.0, np.nan])
    assert texts(rows, "b", {"f": 0, "m": 1}).tolist() == ["m", "f"]
    assert texts(rows, "b", {"f": 0}) is None
    for cell in ("1", True, 10**400, 1e999):
        assert numbers([{"a": cell}], "a") is None
