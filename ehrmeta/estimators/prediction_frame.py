"""Predictions as data frames, one row per row of X."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ehrmeta.errors import DataError
from ehrmeta.estimators.inputs import Inputs
from ehrmeta.estimators.predictions import check_level

FrameType = Literal["pandas", "polars"]
FrameNames = Literal["ehrmeta", "meds"]
Column = npt.NDArray[Any]


def prediction_frame(
    X: Any,
    inputs: Inputs,
    columns: Mapping[str, Column],
    *,
    as_: FrameType,
    names: FrameNames = "ehrmeta",
) -> Any:
    """Task, time and predictions of every row.

    Parameters
    ----------
    X : frame or array, (row, feature)
        A pandas index is kept.
    inputs : Inputs
        X as read; without groups or time there is no such column.
    columns : mapping of str to ndarray, (row,)
        Predictions by name.
    as_ : {"pandas", "polars"}
    names : {"ehrmeta", "meds"}
        As in ``Adapted.predict_frame``.
    """
    time: Any = inputs.time if inputs.dates is None else inputs.dates
    rows = {"task": inputs.groups, "time": time}
    rows = {name: values for name, values in rows.items() if values is not None} | dict(columns)
    if names == "meds":
        rows = _in_meds_names(rows)
    if as_ == "polars":
        import polars as pl

        return pl.from_pandas(pd.DataFrame(rows))
    return pd.DataFrame(rows, index=X.index if isinstance(X, pd.DataFrame) else None)


def check_frame(confidence_level: float, as_: str, names: str = "ehrmeta") -> float:
    """The confidence level; raises a `DataError` if an argument of ``predict_frame`` is invalid."""
    if as_ not in ("pandas", "polars"):
        raise DataError(f"as_ must be 'pandas' or 'polars', got {as_!r}.")
    if names not in ("ehrmeta", "meds"):
        raise DataError(f"names must be 'ehrmeta' or 'meds', got {names!r}.")
    return check_level(confidence_level)


def join_rows(
    known: npt.NDArray[np.bool_],
    adapted: Mapping[str, Column] | None,
    new: Mapping[str, Column],
    *,
    is_missing: bool,
) -> dict[str, Column]:
    """Columns of all rows, from those of the rows whose tasks were adapted and of the others.

    Parameters
    ----------
    known : (row,)
        Whether the row's task was adapted.
    adapted : mapping of str to ndarray, (known row, ...), optional
        Predictions of these rows.
    new : mapping of str to ndarray, (other row, ...)
        Predictions of the other rows.
    is_missing : bool
        Whether the other rows are NaN instead; `new` then gives shapes and types only.

    Examples
    --------
    >>> known = np.array([True, False])
    >>> join_rows(known, {"mean": np.array([3.0])}, {"mean": np.array([1.0])}, is_missing=False)
    {'mean': array([3., 1.])}
    """
    columns = {}
    for name, other in new.items():
        shape, dtype = (len(known), *other.shape[1:]), other.dtype
        if is_missing:
            values = np.full(shape, np.nan, np.float64 if dtype.kind in "biuf" else object)
        else:
            values = np.empty(shape, dtype)
            values[~known] = other
        if adapted is not None:
            values[known] = adapted[name]
        columns[name] = values
    return columns


def _in_meds_names(rows: Mapping[str, Column]) -> dict[str, Column]:
    """Subject, time and probability, in the names that evaluators of MEDS labels read."""
    missing = [name for name in ("task", "time") if name not in rows]
    if missing:
        raise DataError(
            f"names='meds' needs a subject and a prediction time, but {' and '.join(missing)} "
            "are missing. Pass groups= and time=, or take names='ehrmeta' and add the columns."
        )
    if "risk" not in rows:
        raise DataError(
            "names='meds' needs the probability of one of two classes. Use a MetaClassifier of "
            "two classes, or names='ehrmeta'."
        )
    time = rows["time"]
    if time.dtype.kind == "M":
        time = time.astype("datetime64[us]")
    return {
        "subject_id": rows["task"],
        "prediction_time": time,
        "predicted_boolean_probability": rows["risk"],
    }
