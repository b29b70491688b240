"""What a user passes to fit and adapt, checked and as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
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

__all__ = [
    "Cases",
    "cases_of",
    "encoded",
    "features_before_treatment",
    "read_probabilities",
    "read_times",
    "read_treated",
    "task_labels",
]

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


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
        known = _read_propensities(propensity, kind, inputs.n_rows)
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


@dataclass(frozen=True, eq=False)
class Cases:
    """Encoded rows, in the user's order.

    Parameters
    ----------
    x : (row, feature)
        Encoded features, known before the treatment.
    y : (row,)
        Outcome.
    arm : (row,)
        Number of the arm given, 0 the control; of a dose the dose itself.
    task : (row,)
        Number of the task.
    n_tasks : int
    time : (row,), optional
        Of the treatment, in the schema's unit.
    known : (row, arm), optional
        Randomisation probabilities.
    """

    x: Array
    y: Array
    arm: npt.NDArray[Any]
    task: Index
    n_tasks: int
    time: Array | None = None
    known: Array | None = None

    @classmethod
    def none(cls, n_features: int, n_arms: int) -> Cases:
        """A task without rows."""
        return cls(
            np.zeros((0, n_features)),
            np.zeros(0),
            np.zeros(0, np.int64),
            np.zeros(0, np.int64),
            1,
            known=np.zeros((0, n_arms)),
        )

    @property
    def n_rows(self) -> int:
        """Number of rows over all tasks."""
        return len(self.y)

    def counts(self, n_arms: int) -> Index:
        """Rows of every task in every arm, (task, arm)."""
        both = np.bincount(self.task * n_arms + self.arm, minlength=self.n_tasks * n_arms)
        return both.reshape(self.n_tasks, n_arms)

    def in_one_task(self) -> Cases:
        """The same rows as those of one task."""
        return replace(self, task=np.zeros(self.n_rows, np.int64), n_tasks=1)

    def take(self, rows: npt.NDArray[Any]) -> Cases:
        """Some rows, by mask or position; the numbering of the tasks stays."""
        return replace(
            self,
            x=self.x[rows],
            y=self.y[rows],
            arm=self.arm[rows],
            task=self.task[rows],
            time=None if self.time is None else self.time[rows],
            known=None if self.known is None else self.known[rows],
        )


def read_probabilities(propensity: Any, arms: Arms) -> Array:
    """Randomisation probability of every arm, (arm,).

    Parameters
    ----------
    propensity : float or mapping
        Of the second of two arms, or arm to probability.

    Examples
    --------
    >>> read_probabilities(0.25, Arms.fit(["a", "b"]))
    array([0.75, 0.25])
    """
    if isinstance(propensity, Mapping):
        codes = arms.codes(list(propensity))
        found = np.full(arms.n_arms, np.nan)
        found[codes] = list(propensity.values())
    else:
        found = _both(np.array([float(propensity)]), arms)[0]
    return np.asarray(_checked(found[None])[0])


def _read_propensities(propensity: Any, arms: Arms, n_rows: int) -> Array:
    """Known propensity of every arm in every row, (row, arm).

    Parameters
    ----------
    propensity : array-like, (row,) or (row, arm)
        Of the second of two arms, or of all in the order of ``arms_.labels``.
    """
    found = np.asarray(propensity, dtype=np.float64)
    if found.ndim == 1:
        found = _both(found, arms)
    if found.shape != (n_rows, arms.n_arms):
        raise DataError(
            f"propensity has shape {found.shape}, but there are {n_rows:,} rows and {arms.n_arms} "
            "arms. Pass one number a row (of the arm that is not the control), or one per arm."
        )
    return _checked(found)


def _both(found: Array, arms: Arms) -> Array:
    if arms.n_arms > 2:
        raise DataError(
            f"there are {arms.n_arms} arms, so propensity needs one number an arm: pass a mapping "
            "of arm to probability, or an array (row, arm)."
        )
    return np.column_stack([1.0 - found, found])


def _checked(found: Array) -> Array:
    outside = ~((found > 0) & (found < 1)).all(1)
    if outside.any():
        raise DataError(
            f"propensity is missing, 0, 1 or outside of that in {int(outside.sum()):,} of "
            f"{len(found):,} rows (first: row {int(np.flatnonzero(outside)[0])}): who could get "
            "one arm only tells nothing of its effect. Leave those rows out."
        )
    off = np.abs(found.sum(1) - 1) > 1e-6
    if off.any():
        raise DataError(
            f"propensities do not sum to 1 in {int(off.sum()):,} of {len(found):,} rows (first: "
            f"row {int(np.flatnonzero(off)[0])})."
        )
    return found
