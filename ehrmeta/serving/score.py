"""Predictions for whole patients in one call, for engines that split a table into partitions."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

from ehrmeta.data import Table
from ehrmeta.data.clock import to_time
from ehrmeta.data.columns import collected, refuse_rows, require_columns
from ehrmeta.errors import DataError, GroupError
from ehrmeta.estimators import Adapted
from ehrmeta.loading import load
from ehrmeta.nn.device import on_one_core
from ehrmeta.ranges import check_level
from ehrmeta.serving.columns import coded, features_of, schema_of

_MODELS_AT_ONCE = 4  # files that a process keeps loaded


def score_partition(
    frame: Any, model: Any, *, confidence_level: float = 0.9, device: str = "cpu"
) -> Any:
    """Adapt to the rows with an outcome, and predict the rows without one.

    A partition holds all rows of its patients: those with a known outcome are a patient's support,
    those with a missing outcome are predicted. A patient without a support gets the prediction for
    the population. Columns have the names of the fit. The call uses one thread and changes no
    global state, so that engines such as Spark, Ray or dask can run one in each of their workers.

    Parameters
    ----------
    frame : pandas, polars or pyarrow frame, (row, column)
        Other columns are ignored. The outcome's may be missing: then nobody has a support.
    model : fitted estimator, or path
        A regressor or classifier that was fitted on a `Table` or on the command line, calibrated or
        not. A file is loaded once per process.
    confidence_level : float, default 0.9
        Of the intervals, or of the prediction sets of calibrated classes.
    device : str
        Of a model that is loaded from a file.

    Returns
    -------
    DataFrame
        One row per row without an outcome, in their order: `task`, `time` (if the model has time)
        as in the frame, then the columns of ``Adapted.predict_frame``, such as `mean`, `lower` and
        `upper`. A polars frame for polars, else pandas, whose index is kept.

    Raises
    ------
    DataError
        A column is missing, or a row cannot be read, as in ``Table.from_frame``.

    Examples
    --------
    >>> from ehrmeta import MetaRegressor, Table
    >>> frame = pd.DataFrame({"patient": np.repeat(np.arange(40), 5), "age": 50.0})
    >>> frame["hdl"] = 40.0 + frame["patient"] + np.tile([-1.0, 1.0, 0.0, 1.0, -1.0], 40)
    >>> table = Table.from_frame(frame, task="patient", outcome="hdl")
    >>> model = MetaRegressor(max_steps=5, random_state=0).fit(
    ...     table.X, table.y, groups=table.groups
    ... )
    >>> rows = pd.DataFrame({"patient": ["a", "a", "b"], "age": 50.0, "hdl": [70.0, None, None]})
    >>> score_partition(rows, model)[["task", "mean"]].round(-1)
      task  mean
    1    a  70.0
    2    b  60.0
    """
    level = check_level(confidence_level)
    frame = collected(frame)
    is_polars = nw.dependencies.is_polars_dataframe(frame)
    if not isinstance(frame, pd.DataFrame):
        if not nw.dependencies.is_into_dataframe(frame):
            raise DataError(
                f"frame must be a pandas, polars or pyarrow frame, got {type(frame).__name__}."
            )
        frame = nw.from_native(frame, eager_only=True).to_pandas()
    fitted = load_once(model, device) if isinstance(model, str | os.PathLike) else model
    scored = on_one_core(lambda: _scored(frame, fitted, level))
    return nw.from_native(scored, eager_only=True).to_polars() if is_polars else scored


def load_once(path: str | os.PathLike[str], device: str = "cpu") -> Any:
    """The model of a file, kept by the process until the file changes."""
    real = Path(os.path.realpath(path))
    try:
        state = real.stat()
    except OSError:
        return load(path)  # raises an error that names the file
    return _loaded(str(real), device, state.st_mtime_ns, state.st_size, state.st_ino)


@lru_cache(_MODELS_AT_ONCE)
def _loaded(path: str, device: str, *_version: int) -> Any:
    return load(path, device=device)


def _scored(frame: pd.DataFrame, model: Any, level: float) -> pd.DataFrame:
    """Predictions of the rows without an outcome."""
    if not hasattr(model, "unadapted") or isinstance(model, Adapted):
        raise DataError(
            f"score_partition needs a fitted model without patients, got {type(model).__name__}. "
            "Pass a MetaRegressor, a MetaClassifier, a calibrated one, or the file of one."
        )
    patients = model.unadapted()
    schema = schema_of(patients.model)
    outcome, task, clock = (
        str(schema.outcome and schema.outcome.name),
        str(schema.task),
        schema.time,
    )
    if outcome not in frame:
        frame = frame.assign(**{outcome: np.nan})
    classes = getattr(patients, "classes_", None)
    if classes is not None:
        frame = coded(frame, schema, classes)
    require_columns(frame, (task, *((clock.name,) if clock else ())))
    require_columns(frame, (f.name for f in schema.features if f.role != "measured"))
    missing = frame[task].isna().to_numpy()
    refuse_rows(missing, f"column '{task}': the task id is missing", "Fill it in.", GroupError)
    is_known = frame[outcome].notna().to_numpy()
    if is_known.any() and not is_known.all():
        table = Table.from_frame(
            frame, schema, on_missing_outcome="drop", on_constant_outcome="allow"
        )
        y = table.y if classes is None else classes[table.y.astype(np.int64)]
        patients = model.adapt(table.X, y, groups=table.groups, time=table.time)
    asked = frame[~is_known]
    ids: dict[str, Any] = {"task": asked[task]}
    time = None
    if clock is not None:
        ids["time"] = asked[clock.name]
        time = to_time(ids["time"], unit=clock.unit, origin=clock.origin, name=clock.name)
    predicted = patients.predict_frame(
        features_of(asked, schema),
        groups=ids["task"] if len(asked) else None,
        time=time,
        new_groups="population",
        confidence_level=level,
    )
    predicted = predicted.drop(columns=[*ids], errors="ignore").set_index(asked.index)
    return pd.DataFrame({**ids, **predicted})
