"""Rows with a treatment: reading, checking and encoding a user's table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ehrmeta.data import Clock, Encoder, Feature, Schema, TaskIndex, read_column, to_time
from ehrmeta.data.clock import check_zones, has_zone
from ehrmeta.data.columns import collected
from ehrmeta.data.groups import respelled, spelling_hint, warn_of_respelled
from ehrmeta.data.leaks import refuse_copies
from ehrmeta.errors import BundleError, DataError, GroupError, SchemaError
from ehrmeta.estimators.files import label_bytes, read_label_bytes, tensor_like
from ehrmeta.estimators.inputs import (
    Inputs,
    check_outcome,
    check_tasks,
    check_times,
    outcome_name,
    read_inputs,
)
from ehrmeta.estimators.task_model import check_new_groups, one_task
from ehrmeta.treatment.arms import (
    AnyArray,
    Arms,
    Array,
    Dose,
    Index,
    Mask,
    read_propensities,
    read_treatment,
)

NewGroups = Literal["error", "population", "nan"]


@dataclass(frozen=True, eq=False)
class TreatedRows:
    """Encoded rows with outcomes and treatments, in the user's order."""

    x: Array  # (row, feature): encoded features, known before the treatment
    y: Array  # (row,): outcome
    arm: AnyArray  # (row,): number of the arm given, 0 for the control; or the dose
    task: Index  # (row,): number of the task
    n_tasks: int
    time: Array | None = None  # (row,): of the treatment, in the schema's unit
    known: Array | None = None  # (row, arm): randomisation probabilities
    labels: AnyArray | None = None  # (task,): names of the tasks, sorted; None without groups

    @property
    def n_rows(self) -> int:
        """Number of rows over all tasks."""
        return len(self.y)

    @property
    def timed(self) -> dict[str, Array]:
        """Time, if any, as a keyword argument of estimators over tasks."""
        return {} if self.time is None else {"time": self.time}

    @property
    def is_binary(self) -> bool:
        """Whether all outcomes are 0 or 1."""
        return set(np.unique(self.y)) <= {0.0, 1.0}

    @cached_property
    def by_task(self) -> tuple[Index, Index]:
        """Row numbers sorted by task, (row,), and offsets of the tasks, (task + 1,)."""
        sizes = np.bincount(self.task, minlength=self.n_tasks)
        return np.argsort(self.task, kind="stable"), np.concatenate([[0], np.cumsum(sizes)])

    def of_arm(self, values: Array) -> Array:
        """Each row's value for the arm given, (row,), from values (row, arm)."""
        return np.asarray(values[np.arange(self.n_rows), self.arm])

    def counts(self, n_arms: int) -> Index:
        """Number of rows of every task in every arm, (task, arm)."""
        counts = np.bincount(self.task * n_arms + self.arm, minlength=self.n_tasks * n_arms)
        return counts.reshape(self.n_tasks, n_arms)

    def in_one_task(self) -> TreatedRows:
        """The same rows as a single task without a label."""
        return replace(self, task=np.zeros(self.n_rows, np.int64), n_tasks=1, labels=None)

    def to_tensors(self) -> dict[str, Tensor]:
        """Rows and task labels, for a file of patient data."""
        tensors = {
            f"support.{name}": torch.as_tensor(np.array(values))
            for name, values in self._columns().items()
        }
        return tensors if self.labels is None else tensors | {"labels": label_bytes(self.labels)}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], like: TreatedRows, n_tasks: int, label_type: str | None
    ) -> TreatedRows:
        """The inverse of `to_tensors`, checked against the columns of `like`, which has no rows."""
        n_rows = len(tensors["support.y"])
        known = np.zeros((0, 1)) if like.known is None else like.known
        empty = {"x": like.x, "y": like.y, "arm": like.arm, "task": like.task}
        empty |= {"time": like.y, "known": known}
        columns: dict[str, Any] = {
            name: tensor_like(
                tensors, f"support.{name}", torch.as_tensor(none).new_empty(n_rows, *none.shape[1:])
            ).numpy()
            for name, none in empty.items()
            if f"support.{name}" in tensors or name not in ("time", "known")
        }
        within = [(columns["task"], n_tasks)]
        if columns["arm"].dtype.kind == "i":
            within.append((columns["arm"], known.shape[1]))
        if n_tasks < 1 or any(((of < 0) | (of >= limit)).any() for of, limit in within):
            raise BundleError("its support rows refer to unknown tasks or arms.")
        labels = None
        if label_type is not None:
            labels = read_label_bytes(tensors["labels"], label_type, n_tasks)
        return cls(**columns, n_tasks=n_tasks, labels=labels)

    def take(self, rows: AnyArray) -> TreatedRows:
        """Selected rows, by mask or position; tasks keep their numbers."""
        return replace(self, **{name: values[rows] for name, values in self._columns().items()})

    def _columns(self) -> dict[str, Any]:
        columns = {name: getattr(self, name) for name in ("x", "y", "arm", "task", "time", "known")}
        return {name: values for name, values in columns.items() if values is not None}


class Query(NamedTuple):
    """Rows to predict for."""

    rows: TreatedRows
    is_known: Mask  # (row,): whether the row's task was adapted
    new_groups: NewGroups  # how rows of other tasks are predicted


class TreatedTable(NamedTuple):
    """A user's rows, read and checked but not encoded."""

    inputs: Inputs  # without the columns of task and treatment
    treatment: AnyArray | None  # (row,): arm or dose; None for a query
    propensity: Any = None  # known randomisation probabilities


def read_treated(
    X: Any,
    y: Any = None,
    treatment: Any = None,
    groups: Any = None,
    time: Any = None,
    propensity: Any = None,
    outcome_time: Any = None,
    schema: Schema | None = None,
    task_column: str | None = None,
    treatment_column: str | None = None,
) -> TreatedTable:
    """Read a user's rows. Without an outcome they are query rows and need no treatment.

    Raises
    ------
    DataError
        The treatment is missing, or was given after the outcome was known.
    """
    X = collected(X)
    is_query = y is None and task_column not in getattr(X, "columns", ())
    inputs = read_inputs(
        X,
        y,
        groups=groups,
        time=time,
        task_column=None if is_query else task_column,
        clock=schema.time if schema is not None else None,
        outcome=outcome_name(schema),
    )
    columns = dict(inputs.columns)
    in_table = columns.pop(treatment_column, None) if treatment_column is not None else None
    inputs = replace(inputs, columns=columns)
    if y is None:
        return TreatedTable(inputs, None)
    _check_order(inputs, outcome_time, schema)
    values = in_table if treatment is None else treatment
    if values is None:
        raise DataError("treatment is missing: pass treatment= with the arm of every row.")
    if len(values) != inputs.n_rows:
        raise DataError(
            f"treatment has {len(values):,} rows, X has {inputs.n_rows:,}. Pass one value per "
            "row of X."
        )
    return TreatedTable(inputs, read_treatment(values), propensity)


@dataclass(frozen=True, eq=False)
class TreatmentEncoder:
    """Encodes a user's table as `TreatedRows`, with the arms, columns and scales of training."""

    treatment: Arms | Dose
    columns: tuple[str, ...]  # of X at fit, in their order
    features: Encoder  # of all columns, which are known before the treatment
    schema: Schema | None = None
    # task_column, treatment_column: columns of X that name the task and the treatment
    task_column: str | None = None
    treatment_column: str | None = None
    zoned: bool | None = None  # whether the training times had a time zone

    @classmethod
    def fit(
        cls,
        table: TreatedTable,
        treatment: Arms | Dose,
        schema: Schema | None = None,
        task_column: str | None = None,
        treatment_column: str | None = None,
    ) -> TreatmentEncoder:
        """Learn scales and category levels from the training rows, which are checked first."""
        inputs, columns = table.inputs, table.inputs.columns
        tasks = inputs.groups
        _refuse_single_rows(inputs)
        check_training_rows(inputs, schema)
        features = known_features(columns, schema)
        if schema is None:  # tasks are cohorts, if there are several, or else patients
            encoder = Encoder.fit(columns, features, sites=tasks)
        else:
            in_cohorts = schema.task_kind == "cohort"
            encoder = Encoder.fit(columns, features, groups=None if in_cohorts else tasks)
        names = schema, task_column, treatment_column
        return cls(treatment, tuple(columns), encoder, *names, inputs.zoned)

    def read(self, X: Any, y: Any = None, *others: Any, **named: Any) -> TreatedTable:
        """Read rows as at fit; other arguments as in `read_treated`."""
        for name in ("schema", "task_column", "treatment_column"):
            named[name] = getattr(self, name)
        table = read_treated(X, y, *others, **named)
        check_zones(table.inputs.zoned, self.zoned, "those that the model was fitted on")
        return table

    def rows(self, table: TreatedTable, *, of_fit: bool = False) -> TreatedRows:
        """Encode rows with their treatments and known propensities.

        Levels of few patients are shrunk, except in rows `of_fit`, from which they are learned.
        """
        inputs = table.inputs
        x = self._x(inputs, shrink=not of_fit)
        tasks, known = inputs.tasks(), None
        if table.propensity is not None:
            if not isinstance(self.treatment, Arms):
                raise DataError("propensity= is for arms, but the treatment is a dose. Omit it.")
            known = read_propensities(table.propensity, self.treatment, inputs.n_rows)
        return TreatedRows(
            x,
            inputs.outcome(),
            self.treatment.codes(table.treatment),
            tasks.codes,
            max(tasks.n_tasks, 1),
            inputs.time,
            known,
            None if inputs.groups is None else tasks.labels,
        )

    def query(self, X: Any, groups: Any, adapted: TreatedRows, new_groups: NewGroups) -> Query:
        """Encode query rows, with the task numbers of the adapted tasks.

        Raises
        ------
        GroupError
            `groups` is missing, or names a task that was not adapted.
        """
        check_new_groups(new_groups)
        inputs = self.read(X, groups=groups).inputs
        x = self._x(inputs)
        remedy = "pass new_groups='population' or 'nan'"
        new, n_support = new_groups != "error", adapted.n_rows
        task = task_numbers(inputs, adapted.labels, n_support=n_support, new=new, remedy=remedy)
        is_known = task >= 0
        no_outcome, no_arm = np.full(inputs.n_rows, np.nan), np.zeros(inputs.n_rows, np.int64)
        rows = TreatedRows(x, no_outcome, no_arm, np.maximum(task, 0), adapted.n_tasks)
        return Query(rows, is_known, new_groups)

    def no_rows(self) -> TreatedRows:
        """A task without rows."""
        none = np.zeros(0, np.int64)
        x = np.zeros((0, len(self.features.fixed_names)))
        known = np.zeros((0, len(self.treatment.vectors)))
        arm = none if isinstance(self.treatment, Arms) else np.zeros(0)
        return TreatedRows(x, np.zeros(0), arm, none, 1, known=known)

    def _x(self, inputs: Inputs, *, shrink: bool = True) -> Array:
        """Encoded features, (row, feature), after a check of the columns."""
        check_columns(inputs, self.columns)
        return self.features.transform(inputs.columns, shrink=shrink)[0].astype(np.float64)


def known_features(columns: Mapping[str, AnyArray], schema: Schema | None) -> tuple[Feature, ...]:
    """All columns as features that are known before the treatment."""
    if schema is None:
        schema = Schema.infer(pd.DataFrame(dict(columns)))
    return tuple(replace(f, role="known") for f in schema.features if f.name in columns)


def task_numbers(
    inputs: Inputs,
    labels: AnyArray | None,
    *,
    n_support: int = 0,
    new: bool = False,
    remedy: str = "predict with unadapted()",
) -> Index:
    """Number of each row's adapted task; 0 if the model was adapted without groups, -1 if new.

    Raises
    ------
    GroupError
        The rows name no task, a new task although `new` is False, or several although the model
        was adapted to `n_support` rows of one.
    """
    if labels is None:
        return one_task(inputs, n_support)
    if inputs.groups is None:
        raise GroupError(
            f"groups is missing: the model was adapted to {len(labels):,} named tasks, so pass "
            "groups= with the task of every row."
        )
    task: Index = pd.Index(labels).get_indexer(inputs.groups).astype(np.int64)
    unknown = np.flatnonzero(task < 0)
    alike = respelled(inputs.groups[unknown], labels) if len(unknown) else 0
    if new:
        warn_of_respelled(alike)
    elif len(unknown):
        raise GroupError(
            f"{len(unknown):,} of {len(task):,} rows (first: row {unknown[0]}) belong to tasks "
            f"that were not adapted.{spelling_hint(alike)} Adapt to them first, or {remedy}."
        )
    return task


def check_columns(inputs: Inputs, columns: tuple[str, ...]) -> None:
    """Raise `SchemaError` unless the columns are those passed to fit."""
    if tuple(inputs.columns) != columns:
        missing = [name for name in columns if name not in inputs.columns]
        unknown = [name for name in inputs.columns if name not in columns]
        raise SchemaError(
            f"the columns of X differ from those passed to fit: missing {missing}, unknown "
            f"{unknown}. Pass the same columns in the same order."
        )


def described(n_shots: Index, noun: str) -> str:
    """Number of tasks and of rows per task, as text.

    Examples
    --------
    >>> described(np.array([2, 5]), "patient")
    '2 patients, 2-5 rows each'
    """
    low, high = n_shots.min(), n_shots.max()
    tasks = f"1 {noun}" if len(n_shots) == 1 else f"{len(n_shots):,} {noun}s"
    return f"{tasks}, {low if low == high else f'{low}-{high}'} rows each"


def check_training_rows(inputs: Inputs, schema: Schema | None) -> None:
    """Raise or warn if tasks, outcome or times are unfit for learning, as in ``MetaRegressor``."""
    tasks, y = inputs.tasks(), inputs.outcome()
    check_outcome(y, outcome_name(schema), robust="or drop these rows")
    if inputs.groups is None or tasks.n_tasks == 1:
        refuse_copies(inputs.columns, y, outcome_name(schema))
    else:
        check_tasks(tasks, inputs.columns, inputs, schema)
        _refuse_constant_tasks(y, tasks, outcome_name(schema))
    clock = schema.time if schema is not None else None
    if clock is not None:
        check_zones(inputs.zoned, clock.zoned, "those that the schema describes", clock.name)
    if inputs.time is not None:
        check_times(inputs.time, schema)


def _refuse_constant_tasks(y: Array, tasks: TaskIndex, name: str) -> None:
    """Raise if no task has rows of different outcomes."""
    first = y[tasks.order[tasks.starts[:-1]]]
    if (y == first[tasks.codes]).all():
        raise DataError(
            f"outcome '{name}' is constant within every one of {tasks.n_tasks:,} tasks, so no "
            "difference within a task can be due to its treatment. If one value stands in all rows "
            "of a task, keep one row of each and leave groups= out."
        )


def _refuse_single_rows(inputs: Inputs) -> None:
    """Raise if every row is a task of its own, as if patients of one trial were tasks."""
    tasks = inputs.tasks()
    if inputs.groups is not None and tasks.n_tasks > 1 and (tasks.sizes < 2).all():
        raise GroupError(
            f"none of {tasks.n_tasks:,} tasks has two rows, so there is nothing to learn of a "
            "task. If these are the patients of one trial, leave groups= out; if there are several "
            "trials or sites, pass groups= with that of every row."
        )


def read_times(values: Any, name: str, schema: Schema | None, inputs: Inputs) -> Array:
    """Other times of the rows, in the unit and from the origin of the schema's clock."""
    clock = schema.time if schema is not None and schema.time is not None else Clock(name)
    check_zones(has_zone(values), inputs.zoned, "those of time=", name)
    times = to_time(read_column(values, name), unit=clock.unit, origin=clock.origin, name=name)
    if times.shape != (inputs.n_rows,):
        raise DataError(
            f"{name} has {len(times):,} rows, X has {inputs.n_rows:,}. Pass one value per row of X."
        )
    return times


def _check_order(inputs: Inputs, outcome_time: Any, schema: Schema | None) -> None:
    """Raise `DataError` if an outcome was known before the treatment."""
    if outcome_time is None:
        return
    time = inputs.time
    if time is None:
        raise DataError("outcome_time= requires time=, the time of the treatment.")
    known = read_times(outcome_time, "outcome_time", schema, inputs)
    early = np.flatnonzero(known < time)
    if len(early):
        raise DataError(
            f"the outcome was known before the treatment in {len(early):,} of {len(time):,} rows "
            f"(first: row {early[0]}), so the treatment cannot have caused it. Remove those rows, "
            "or check whether the two times are swapped."
        )
