"""What a user passes to fit and adapt, checked and as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ehrmeta.data import Feature, Schema
from ehrmeta.errors import DataError
from ehrmeta.estimators.inputs import Inputs, outcome_name, read_inputs

__all__ = ["features_before_treatment", "read_treated", "task_labels"]

Array = npt.NDArray[np.float64]


def read_treated(
    X: Any,
    y: Any = None,
    *,
    groups: Any = None,
    time: Any = None,
    treatment: Any = None,
    outcome_time: Any = None,
    schema: Schema | None = None,
    task_column: str | None = None,
    treatment_column: str | None = None,
) -> tuple[Inputs, Any]:
    """The rows without the columns of task and treatment, and the treatment.

    Rows without an outcome, to be predicted for, need neither column.

    Raises
    ------
    DataError
        The treatment is missing, or came after the outcome was known.
    """
    asked_only = y is None and task_column not in getattr(X, "columns", ())
    inputs = read_inputs(
        X,
        y,
        groups=groups,
        time=time,
        task_column=None if asked_only else task_column,
        clock=schema.time if schema is not None else None,
        outcome=outcome_name(schema),
    )
    columns = dict(inputs.columns)
    own = columns.pop(treatment_column, None) if treatment_column is not None else None
    treatment = own if treatment is None else treatment
    inputs = replace(inputs, columns=columns)
    if y is None:
        return inputs, treatment
    _check_order(inputs.time, outcome_time)
    if treatment is None:
        raise DataError("treatment is missing: pass treatment= with the arm of every row.")
    if len(treatment) != inputs.n_rows:
        raise DataError(
            f"treatment has {len(treatment):,} rows, X has {inputs.n_rows:,}. Pass one value per "
            "row of X."
        )
    return inputs, treatment


def features_before_treatment(
    columns: Mapping[str, npt.NDArray[Any]], schema: Schema | None
) -> tuple[Feature, ...]:
    """All columns as features known at the row: whatever is in X was known before the treatment."""
    schema = Schema.infer(pd.DataFrame(dict(columns))) if schema is None else schema
    return tuple(replace(f, role="known") for f in schema.features if f.name in columns)


def task_labels(inputs: Inputs) -> npt.NDArray[Any] | None:
    """Names of the tasks, sorted; None for one without a name."""
    return None if inputs.groups is None else inputs.tasks().labels


def _check_order(time: Array | None, outcome_time: Any) -> None:
    """An outcome cannot be known before the treatment."""
    if outcome_time is None:
        return
    if time is None:
        raise DataError("outcome_time= needs time=, the time of the treatment.")
    early = np.flatnonzero(np.asarray(outcome_time, np.float64) < time)
    if len(early):
        raise DataError(
            f"the outcome was known before the treatment in {len(early):,} of {len(time):,} rows "
            f"(first: row {early[0]}): it cannot be an effect. Leave those rows out, or check "
            "which time is which."
        )
