"""Adaptation to the visits of new patients, and predictions for them."""

from decimal import Decimal, InvalidOperation
from typing import Any

import click
import numpy as np
import pandas as pd

from ehrmeta.cli import tables
from ehrmeta.cli.messages import stage
from ehrmeta.data import Schema, Table
from ehrmeta.data.clock import to_time
from ehrmeta.data.columns import require_columns
from ehrmeta.data.table_file import write_frame
from ehrmeta.errors import DataError, SchemaError
from ehrmeta.estimators import (
    Adapted,
    ConformalClassifier,
    ConformalRegressor,
    MetaClassifier,
    MetaRegressor,
)
from ehrmeta.estimators.adapted import NewGroups
from ehrmeta.loading import load
from ehrmeta.serving.columns import features_of

MODELS = (MetaRegressor, MetaClassifier, ConformalRegressor, ConformalClassifier)


def adapt_model(
    model: str, visits: str, out: str, schema_file: str | None, mode: int, **form: Any
) -> None:
    """Adapt a model to a table of visits and save the adapted patients."""
    fitted = load_model(model)
    schema = tables.schema_of(fitted.unadapted().model, model, schema_file)
    support = _read_support(visits, schema, fitted, form)
    with tables.in_lines(visits, support.X.index, **form), stage("adapting"):
        adapted = fitted.adapt(support.X, support.y, groups=support.groups, time=support.time)
    adapted.save(out, mode=mode)
    click.echo(f"{adapted}, saved {out} (patient data: protect it like the visits)")


def predict_rows(
    model: str,
    rows: str,
    support: str | None,
    new_groups: NewGroups,
    event: str | None,
    confidence_level: float,
    out: str,
    schema_file: str | None,
    mode: int,
    **form: Any,
) -> None:
    """Predict every row of a table and write the predictions."""
    loaded = load(model)
    patients = loaded if isinstance(loaded, Adapted) else loaded.unadapted()
    schema = tables.schema_of(patients.model, model, schema_file)
    task, clock = str(schema.task), schema.time
    classes = getattr(patients, "classes_", None)
    chosen = tables.event_of(classes, event)
    if support is not None:
        visits = _read_support(support, schema, patients, form)
        groups = groups_of(pd.Series(visits.groups, name=task), patients, keep_new=True)
        add = loaded.update if isinstance(loaded, Adapted) else loaded.adapt
        with tables.in_lines(support, visits.X.index, **form), stage("adapting"):
            patients = add(visits.X, visits.y, groups=groups, time=visits.time)

    frame = tables.read_rows(rows, schema, **form).frame
    needed = (*([task] if patients.labels_ is not None else []), *([clock.name] if clock else []))
    require_columns(frame, needed)
    require_columns(frame, (f.name for f in schema.features if f.role != "measured"))
    ids = [name for name in dict.fromkeys((task, *needed)) if name in frame]
    query: dict[str, Any] = {"X": features_of(frame, schema), "time": None}
    with tables.in_lines(rows, **form), stage("predicting"):
        query["groups"] = groups_of(frame[task], patients) if task in needed else None
        if clock is not None:
            unit, origin = clock.unit, clock.origin
            query["time"] = to_time(frame[clock.name], unit=unit, origin=origin, name=clock.name)
        predicted = patients.predict_frame(
            **query, new_groups=new_groups, confidence_level=confidence_level
        )
    predicted = predicted.drop(columns=["task", "time"], errors="ignore")
    predicted = predicted.rename(columns={"mean": "prediction"}).set_index(frame.index)
    if classes is not None and chosen == classes[0]:
        predicted["risk"] = 1.0 - predicted["risk"]
    clashes = [name for name in ids if name in predicted]
    if clashes:
        raise SchemaError(
            f"column(s) {clashes} of '{rows}' would be overwritten by the predictions. Rename "
            "them, and fit again with the new names."
        )
    write_frame(frame[ids].join(predicted), out, mode=mode)
    source = "the population"
    if task in needed:
        codes = pd.Index(patients.labels_).get_indexer(pd.Index(query["groups"]))
        known = codes[codes >= 0]
        source = f"{len(set(known)):,} adapted tasks"
        if len(known) < len(codes):
            instead = "the population" if new_groups == "population" else "no prediction"
            source += f" ({len(codes) - len(known):,} rows of other tasks: {instead})"
    click.echo(f"predicted {len(predicted):,} rows from {source}, saved {out}")


def load_model(path: str) -> Any:
    """A fitted or calibrated model of numbers or classes."""
    loaded = load(path)
    if not isinstance(loaded, MODELS):
        MetaRegressor.load(path)  # raises an error that says what the file holds
    return loaded


def _read_support(source: str, schema: Schema, model: Any, form: dict[str, Any]) -> Table:
    """Visits to adapt to; those without a value are left out and counted."""
    table = tables.read_table(
        source,
        schema,
        classes=getattr(model, "classes_", None),
        on_constant_outcome="allow",
        **form,
    )
    tables.left_out(table)
    return table


def groups_of(ids: pd.Series, patients: Adapted, *, keep_new: bool = False) -> Any:
    """Convert task ids, text in a CSV, to the type of the adapted tasks' labels, (row,).

    Numbers are compared exactly, never as floats. An unknown id becomes a number that no adapted
    task has; with `keep_new` it keeps its value, as for rows that add to the supports.
    """
    labels = patients.labels_
    text = ids.astype("str").where(ids.notna(), None)
    if labels is None:
        return ids if keep_new else text
    if labels.dtype == object:
        return text
    if labels.dtype.kind == "M":
        return pd.to_datetime(ids, errors="coerce")
    whole = labels.dtype.kind in "iub"
    codes, texts = pd.factorize(text)
    values = [_number(one) for one in texts]
    wrong = [
        i
        for i, value in enumerate(values)
        if value is None or (keep_new and whole and value != value.to_integral_value())
    ]
    bad = (codes < 0) | np.isin(codes, wrong)
    if bad.any():
        raise DataError(
            f"column '{ids.name}': {int(bad.sum()):,} of {len(ids):,} rows are not numbers, "
            "but the ids of the adapted tasks are. Correct those rows."
        )
    dtype = np.dtype(np.int64) if labels.dtype.kind in "ib" else labels.dtype
    if keep_new:
        return np.array([int(Decimal(one)) if whole else float(one) for one in texts], dtype)[codes]
    known = {_number(str(label)): label for label in labels.tolist()}
    unused = next(n for n in range(len(known) + 1) if Decimal(n) not in known)
    return np.array([known.get(value, unused) for value in values], dtype)[codes]


def _number(text: str) -> Decimal | None:
    """The exact number in a text, if it is one."""
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
