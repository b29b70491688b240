"""OpenAPI description of a server: the columns of its model, with their units and ranges."""

from typing import Any

from ehrmeta.data.schema import Schema
from ehrmeta.serving.predictor import Predictor
from ehrmeta.serving.requests import Limits

Json = dict[str, Any]


def describe(predictor: Predictor, digest: str, limits: Limits, *, has_token: bool) -> Json:
    """The document of ``/openapi.json``."""
    schema = predictor.schema
    outcome = schema.outcome.name if schema.outcome else ""
    ids = [*([schema.time.name] if schema.time else [])]
    always = [f.name for f in schema.features if f.role != "measured"]
    support = _object(_row(predictor), [*ids, outcome])
    query = {name: cell for name, cell in _row(predictor).items() if name != outcome}
    rows = {"type": "array", "maxItems": limits.n_rows}
    level = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1, "default": 0.9}
    body = {
        "support": {
            **rows,
            "items": support,
            "description": "Rows to adapt to, with an outcome. Without any: the population.",
        },
        "query": {
            **rows,
            "minItems": 1,
            "items": _object(query, ids),
            "description": "Rows to predict, after the support. A measured column may be missing: "
            f"its last value in the support counts. Always needed: {', '.join(always) or 'none'}.",
        },
        "confidence_level": {**level, "description": "Of the intervals."},
    }
    answers: Json = {
        "200": _answer(
            "Predictions in the order of the query, and warnings.", _object(_prediction(predictor))
        ),
        "401": {"description": "The bearer token is missing or wrong."},
        "413": {"description": f"The body has more than {limits.n_bytes:,} bytes."},
        "422": _answer("The rows cannot be used; `detail` says why, as in Python.", None),
        "503": {"description": "Too many requests wait, or the server ends. Try again."},
    }
    operation = {
        "summary": "Adapt to the support and predict the query, of one or many patients.",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _object(body, ["query"])}},
        },
        "responses": answers,
    }
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": f"ehrmeta: {outcome}",
            "version": digest[:12],
            "description": f"Predictions of {outcome} by a model with SHA-256 {digest}.",
        },
        "paths": {
            "/predict": {"post": operation},
            "/health": {"get": {"summary": "Digest of the model.", "responses": _ok()}},
            "/metrics": {"get": {"summary": "Metrics for Prometheus.", "responses": _ok()}},
        },
    }
    if has_token:
        bearer = {"type": "http", "scheme": "bearer"}
        document["components"] = {"securitySchemes": {"token": bearer}}
        document["security"] = [{"token": []}]
    return document


def _row(predictor: Predictor) -> dict[str, Json]:
    """Columns of a row: task, time, features and outcome."""
    schema: Schema = predictor.schema
    row: dict[str, Json] = {
        predictor.task: {
            "type": ["string", "integer", "null"],
            "description": "Patient. Leave it out of all rows if they are of one.",
        }
    }
    if schema.time is not None:
        kind = "number" if schema.time.zoned is None else "string"
        row[schema.time.name] = {"type": kind, "description": f"Time [{schema.time.unit}]."}
    for feature in schema.features:
        kind = "string" if feature.kind == "categorical" else "number"
        cell: Json = {"type": [kind, "null"], "description": _words(feature)}
        row[feature.name] = cell | _range(feature)
        if feature.kind == "binary":
            row[feature.name] |= {"enum": [0, 1, None]}
    if schema.outcome is not None:
        cell = {"type": "number", "description": _words(schema.outcome)} | _range(schema.outcome)
        if predictor.classes is not None:
            cell = {"enum": predictor.classes.tolist(), "description": _words(schema.outcome)}
        row[schema.outcome.name] = cell
    return row


def _words(column: Any) -> str:
    """Label, role and unit of a column."""
    words = column.label or column.name
    role = getattr(column, "role", "outcome")
    return f"{words} [{column.unit}], {role}." if column.unit else f"{words}, {role}."


def _range(column: Any) -> Json:
    """The plausible range: a value outside counts as missing, with a warning."""
    ends = {"minimum": column.low, "maximum": column.high}
    return {name: end for name, end in ends.items() if end is not None}


def _prediction(predictor: Predictor) -> dict[str, Json]:
    """Keys of an answer."""
    number: Json = {"type": ["number", "null"]}
    ids: dict[str, Json] = {"task": {}, **({"time": {}} if predictor.schema.time else {})}
    if predictor.classes is None:
        outcome = predictor.schema.outcome
        unit = f" [{outcome.unit}]" if outcome and outcome.unit else ""
        values = {
            "mean": {**number, "description": f"Predictive mean{unit}."},
            "lower": {**number, "description": f"Lower end of the interval{unit}."},
            "upper": {**number, "description": f"Upper end of the interval{unit}."},
        }
    else:
        values = {"class": {"description": "The likeliest class; its risk stands beside."}}
    return {
        "predictions": {"type": "array", "items": {"type": "object", "properties": ids | values}},
        "warnings": {"type": "array", "items": {"type": "string"}},
    }


def _object(properties: dict[str, Json], required: list[str] | None = None) -> Json:
    return {"type": "object", "properties": properties, "required": required or []}


def _answer(text: str, schema: Json | None) -> Json:
    schema = schema or _object({"detail": {"type": "string"}}, ["detail"])
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _ok() -> Json:
    return {"200": {"description": "As said."}}
