"""Tables for the command line: named columns of files in, checked tables out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from ehrmeta.data import Clock, Schema, Table, list_datasets, load_dataset
from ehrmeta.data.checks import require_columns
from ehrmeta.data.frame_file import read_frame
from ehrmeta.data.schema import OnDuplicate, TaskKind
from ehrmeta.errors import DataError, SchemaError
from ehrmeta.estimators import Adapted, MetaRegressor

__all__ = [
    "features_of",
    "groups_of",
    "is_bundled",
    "read_support",
    "read_table",
    "read_training_table",
    "schema_of",
]


def is_bundled(table: str) -> bool:
    """Whether a name is that of a bundled data set; a file of that name goes first."""
    return table in list_datasets() and not Path(table).exists()


def read_training_table(
    path: str,
    *,
    task: str,
    target: str,
    time: str | None = None,
    time_unit: str = "d",
    features: Sequence[str] = (),
    measured: Sequence[str] = (),
    units: Sequence[tuple[str, str]] = (),
    ranges: Sequence[tuple[str, str]] = (),
    task_kind: TaskKind = "patient",
    on_duplicate: OnDuplicate = "error",
    on_missing_outcome: Literal["error", "drop"] = "error",
) -> Table:
    """A file whose columns get their roles from the options of ``ehrmeta fit``.

    Parameters
    ----------
    features : sequence of str
        By default all columns without another role.
    units, ranges : sequence of (column, text)
        A UCUM unit; a plausible range ``LOW:HIGH``, where either end may be empty.
    """
    frame = read_frame(path, text=(task,))
    if features:
        others = [name for name in (task, target, time) if name is not None]
        require_columns(frame, (*others, *features))
        frame = frame[list(dict.fromkeys((*others, *features)))]
    schema = Schema.infer(
        frame,
        task=task,
        outcome=target,
        time=None if time is None else Clock(time, time_unit),
        task_kind=task_kind,
        on_duplicate=on_duplicate,
        measured=measured,
        units=dict(units),
    )
    for column, text in ranges:
        schema = _with_range(schema, column, text)
    return Table.from_frame(frame, schema, on_missing_outcome=on_missing_outcome)


def read_table(path: str, schema: Schema) -> Table:
    """A bundled table, or a file under a fitted model's schema; rows without an outcome go."""
    if is_bundled(path):
        return load_dataset(path)
    frame = read_frame(path, text=_task_columns(schema))
    return Table.from_frame(frame, schema, on_missing_outcome="drop")


def read_support(path: str, schema: Schema) -> Table:
    """The rows seen so far of some tasks."""
    frame = read_frame(path, text=_task_columns(schema))
    return Table.from_frame(frame, schema, on_constant_outcome="allow")


def schema_of(model: MetaRegressor, path: str) -> Schema:
    """The columns a model was fitted on; treatment and outcome time play no part in predicting."""
    if model.schema_ is None or model.schema_.task is None or model.schema_.outcome is None:
        raise SchemaError(
            f"the model in '{path}' does not know its columns by name. Fit it from the command "
            "line, or in Python on the X of a Table."
        )
    return dataclasses.replace(model.schema_, treatment=None, outcome_time=None)


def features_of(frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """The features of rows to predict; what is known only once measured may be absent."""
    require_columns(frame, tuple(f.name for f in schema.features if f.role != "measured"))
    return frame.reindex(columns=list(schema.names))


def groups_of(ids: pd.Series, patients: Adapted) -> Any:
    """Task ids in the type of the adapted ones: a CSV holds text, (row,)."""
    labels = patients.labels_
    if labels is None or labels.dtype == object:
        return ids.astype("str").where(ids.notna(), None)
    numbers = pd.to_numeric(ids, errors="coerce").to_numpy(np.float64)
    if np.isnan(numbers).any():
        raise DataError(
            f"column '{ids.name}' is missing or text in {int(np.isnan(numbers).sum()):,} of "
            f"{len(ids):,} rows, but the adapted tasks are numbered. Correct those rows."
        )
    return numbers.astype(labels.dtype)


def _with_range(schema: Schema, column: str, text: str) -> Schema:
    """The schema with one more plausible range."""
    low, sign, high = text.partition(":")
    try:
        limits = [float(end) if end else None for end in (low, high)]
    except ValueError:
        sign = ""
    if not sign:
        raise SchemaError(f"range {column}={text}: write COLUMN=LOW:HIGH, such as hdl=5:200.")
    outcome = schema.outcome
    if outcome is not None and column == outcome.name:
        outcome = dataclasses.replace(outcome, low=limits[0], high=limits[1])
        return dataclasses.replace(schema, outcome=outcome)
    require_columns(dict.fromkeys(schema.names), (column,))
    return dataclasses.replace(
        schema,
        features=tuple(
            dataclasses.replace(f, low=limits[0], high=limits[1]) if f.name == column else f
            for f in schema.features
        ),
    )


def _task_columns(schema: Schema) -> tuple[str, ...]:
    return () if schema.task is None else (schema.task,)
