"""What a user passes to fit and adapt, checked and as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ehrmeta.data import Encoder, Feature, Schema
from ehrmeta.data.clock import to_time
from ehrmeta.data.columns import read_column
from ehrmeta.data.schema import Clock
from ehrmeta.errors import DataError, SchemaError
from ehrmeta.estimators.inputs import Inputs, outcome_name, read_inputs
from ehrmeta.treatment.arms import Arms, Dose
from ehrmeta.treatment.cases import Cases
from ehrmeta.treatment.propensity import read_propensities

__all__ = [
    "cases_of",
    "encoded",
    "features_before_treatment",
    "read_times",
    "read_treated",
    "task_labels",
]

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
    _check_order(inputs.time, outcome_time, schema)
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


def encoded(inputs: Inputs, encoder: Encoder, columns: tuple[str, ...]) -> Array:
    """Encoded features, (row, feature), of rows with the columns of fit."""
    if tuple(inputs.columns) != columns:
        missing = [name for name in columns if name not in inputs.columns]
        other = [name for name in inputs.columns if name not in columns]
        raise SchemaError(
            f"the columns of X are not those of fit: missing {missing}, unknown {other}. Pass "
            "the columns of fit, in their order."
        )
    return encoder.transform(inputs.columns)[0].astype(np.float64)


def cases_of(inputs: Inputs, x: Array, treatment: Any, kind: Arms | Dose, propensity: Any) -> Cases:
    """Rows with their treatments and, where they are known, propensities."""
    tasks, known = inputs.tasks(), None
    if propensity is not None:
        if not isinstance(kind, Arms):
            raise DataError("propensity= is for arms; of a dose it is a regressor of the model.")
        known = read_propensities(propensity, kind, inputs.n_rows)
    return Cases(
        x,
        inputs.outcome(),
        kind.codes(treatment),
        tasks.codes,
        max(tasks.n_tasks, 1),
        inputs.time,
        known,
    )


def read_times(values: Any, name: str, schema: Schema | None, n_rows: int) -> Array:
    """Times of rows on the schema's clock, as `time` itself is read."""
    clock = schema.time if schema is not None and schema.time is not None else Clock(name)
    found = to_time(read_column(values, name), unit=clock.unit, origin=clock.origin, name=name)
    if found.shape != (n_rows,):
        raise DataError(
            f"{name} has {len(found):,} rows, X has {n_rows:,}. Pass one value per row of X."
        )
    return found


def task_labels(inputs: Inputs) -> npt.NDArray[Any] | None:
    """Names of the tasks, sorted; None for one without a name."""
    return None if inputs.groups is None else inputs.tasks().labels


def _check_order(time: Array | None, outcome_time: Any, schema: Schema | None) -> None:
    """An outcome cannot be known before the treatment."""
    if outcome_time is None:
        return
    if time is None:
        raise DataError("outcome_time= needs time=, the time of the treatment.")
    known = read_times(outcome_time, "outcome_time", schema, len(time))
    early = np.flatnonzero(known < time)
    if len(early):
        raise DataError(
            f"the outcome was known before the treatment in {len(early):,} of {len(time):,} rows "
            f"(first: row {early[0]}): it cannot be an effect. Leave those rows out, or check "
            "which time is which."
        )
