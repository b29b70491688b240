"""Columns of the tables that a fitted model reads: schema, features and classes."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data.censored import resolve_censored
from ehrmeta.data.schema import Schema
from ehrmeta.errors import DataError, SchemaError
from ehrmeta.estimators import TaskModel


def schema_of(model: TaskModel, what: str = "the model") -> Schema:
    """Schema that a model was fitted on, without treatment and outcome time.

    Parameters
    ----------
    model : TaskModel
    what : str
        The model in an error, such as "the model in 'hdl.ehrmeta'".

    Raises
    ------
    SchemaError
        The model was fitted on arrays: its task and outcome have no names.
    """
    stored = model.schema
    if stored is None or stored.task is None or stored.outcome is None:
        raise SchemaError(
            f"{what} does not know its columns by name. Fit it on the command line, or in Python "
            "on the X of a Table."
        )
    return dataclasses.replace(stored, treatment=None, outcome_time=None)


def text_columns(schema: Schema) -> tuple[str, ...]:
    """Columns to read from a CSV as text: the task and the categories."""
    categories = (f.name for f in schema.features if f.kind == "categorical")
    return (*(() if schema.task is None else (schema.task,)), *categories)


def features_of(frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """Columns of the features, missing where the frame has none; censored values as in `fit`."""
    columns = {name: frame[name].to_numpy() for name in schema.names if name in frame}
    text = {name: cells.astype(object) for name, cells in columns.items() if cells.dtype == object}
    numeric = {f.name for f in schema.features if f.kind == "numeric"} & text.keys()
    resolved = resolve_censored({name: text[name] for name in numeric}, schema.censored)
    return frame.assign(**resolved).reindex(columns=list(schema.names))


def coded(frame: pd.DataFrame, schema: Schema, classes: NDArray[Any]) -> pd.DataFrame:
    """The frame with the number of its class in every cell of the outcome."""
    name = schema.outcome.name if schema.outcome else ""
    cells = frame[name]
    codes = cells.astype(object).map(codes_of(classes))
    unknown = int((codes.isna() & cells.notna()).sum())
    if unknown:
        raise DataError(
            f"column '{name}': {unknown:,} of {len(cells):,} values are none of the "
            f"{len(classes)} classes of `fit`. Correct their spelling, or drop those rows."
        )
    return frame.assign(**{name: codes.astype(np.float64)})


def codes_of(classes: NDArray[Any]) -> dict[Any, int]:
    """The number of every class, however it is written."""
    codes = {label: number for number, label in enumerate(classes.tolist())}
    if classes.dtype.kind in "iuf":
        codes |= {str(label): number for label, number in codes.items()}
        codes |= {"True": 1, "False": 0} if codes.keys() >= {0, 1} else {}
    return codes
