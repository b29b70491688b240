"""The description of a server has the model's own columns, units and ranges."""

import json

from ehrmeta import MetaRegressor, Table
from ehrmeta.serving.openapi import describe
from ehrmeta.serving.predictor import Predictor
from ehrmeta.serving.requests import Limits


def test_columns_have_their_units_ranges_and_kinds(visits):
    table = Table.from_frame(
        visits.assign(smoker=visits["patient"] % 2),
        task="patient",
        time="day",
        outcome="hdl",
        measured=["crp"],
        units={"hdl": "mg/dL", "crp": "mg/L"},
        ranges={"hdl": (5, 200), "crp": (0, 500)},
    )
    model = MetaRegressor(max_steps=1, outcome_transform=None, random_state=0)
    predictor = Predictor(model.fit(table.X, table.y, groups=table.groups, time=table.time))
    document = describe(predictor, "abc", Limits(n_rows=7), has_token=True)
    assert json.loads(json.dumps(document)) == document
    assert document["security"] == [{"token": []}]
    operation = document["paths"]["/predict"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]["properties"]
    support, query = body["support"]["items"], body["query"]["items"]
    assert body["support"]["maxItems"] == 7
    assert support["properties"]["hdl"] == {
        "type": "number",
        "description": "hdl [mg/dL], outcome.",
        "minimum": 5,
        "maximum": 200,
    }
    assert support["properties"]["crp"] == {
        "type": ["number", "null"],
        "description": "crp [mg/L], measured.",
        "minimum": 0,
        "maximum": 500,
    }
    assert support["properties"]["smoker"]["enum"] == [0, 1, None]
    assert support["properties"]["sex"]["type"] == ["string", "null"]
    assert "hdl" not in query["properties"]
    assert support["required"] == ["day", "hdl"]
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
    row = answer["properties"]["predictions"]["items"]["properties"]
    assert row["mean"]["description"] == "Predictive mean [mg/dL]."
