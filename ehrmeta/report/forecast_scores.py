"""Errors and interval coverage on test patients after k values."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ehrmeta.errors import DataError, GroupError, Remedy
from ehrmeta.estimators import Adapted, ConformalRegressor
from ehrmeta.estimators._base import TaskRegressor
from ehrmeta.estimators.inputs import Inputs
from ehrmeta.estimators.k_shot_protocol import adapt_to_rows, k_shot_splits
from ehrmeta.evaluation.metrics import Array, refuse
from ehrmeta.report.subgroups import mean_range


def read_test_rows(
    model: Any, X: Any, y: Any, groups: Any, time: Any
) -> tuple[TaskRegressor, Inputs]:
    """The model without calibration, and the checked rows of the test patients."""
    fitted = model.model if isinstance(model, ConformalRegressor) else model
    if not isinstance(fitted, TaskRegressor):
        raise DataError(
            f"a {type(fitted).__name__} does not forecast numbers. Pass a regressor over tasks."
        )
    inputs = fitted.fitted_model().read(X, y, groups=groups, time=time)
    if inputs.groups is None:
        raise GroupError("a report needs groups=, the patient of every row.")
    if inputs.time is None:
        raise DataError(
            "a report on forecasts needs a model fitted with time.",
            Remedy("fit-with-time", "Pass time= to fit and to this function."),
        )
    return fitted, inputs


def forecasts(
    model: Any, X: Any, inputs: Inputs, *, shots: Sequence[int], confidence_level: float
) -> pd.DataFrame:
    """Squared error, coverage and interval width of every later row after each k."""
    y, tasks = inputs.outcome(), inputs.tasks()
    parts = []
    for k, support, query in k_shot_splits(inputs, sorted(shots)):
        adapted, later = adapt_to_rows(model, X, inputs, support, query)
        low, high = adapted.predict_interval(**later, confidence_level=confidence_level).T
        columns = {
            "k": k,
            "row": np.flatnonzero(query),
            "task": tasks.codes[query],
            "squared": (adapted.predict(**later) - y[query]) ** 2,
            "covered": (low <= y[query]) & (y[query] <= high),
            "width": high - low,
        }
        parts.append(pd.DataFrame(columns))
    if not parts or parts[-1]["k"].iloc[0] != max(shots):
        raise DataError(
            f"none of the {tasks.n_tasks:,} test patients has a row after the first {max(shots)}.",
            Remedy("fewer-shots", "Lower shots."),
        )
    return pd.concat(parts, ignore_index=True)


def coverage_by_k(rows: pd.DataFrame, *, n_bootstrap: int = 500) -> pd.DataFrame:
    """Coverage of later values by k, averaged over patients, with 95 % limits."""
    records = []
    for k, part in rows.groupby("k"):
        patients = part.groupby("task")[["covered", "width"]].mean()
        record = {"k": k, "n": len(patients), "width": patients["width"].mean()}
        share = mean_range(patients["covered"], n_bootstrap, root=False)
        records.append(record | dict(zip(("value", "low", "high"), share, strict=True)))
    return pd.DataFrame(records)


def event_risk(estimator: Any, X: Any, y: Any, predict: dict[str, Any]) -> tuple[Array, Array]:
    """Indicator and predicted probability of the second class, each (row,).

    `predict` has more arguments of ``predict_proba``, such as groups and time. Raises `DataError`
    unless the classifier has two classes and every outcome is one of them.
    """
    p = np.asarray(estimator.predict_proba(X, **predict), np.float64)
    if p.ndim != 2 or p.shape[1] != 2:
        raise DataError(
            f"predict_proba returned shape {p.shape}. Pass a classifier of two classes."
        )
    classes, y = np.asarray(estimator.classes_), np.asarray(y)
    refuse(~np.isin(y, classes), "y has classes unseen at fit", "Use the class labels of fit.")
    return (y == classes[1]).astype(np.float64), p[:, 1]


def name_of(estimator: Any) -> str:
    """Name of an estimator, for a legend."""
    return estimator.model.name if isinstance(estimator, Adapted) else type(estimator).__name__
