"""Tables of many tasks, checked against a schema."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ehrmeta.data.censored import Censored
from ehrmeta.data.clock import has_zone, to_time
from ehrmeta.data.columns import collected, native_column
from ehrmeta.data.findings import Finding
from ehrmeta.data.schema import Clock, OnDuplicate, Outcome, Schema, TaskKind
from ehrmeta.data.tasks import (
    PatientKFold,
    RandomState,
    TaskIndex,
    before,
    first_k,
    index_tasks,
    random_k,
    split_tasks,
)
from ehrmeta.data.validation import check_table, clean_rows
from ehrmeta.errors import DataError, DataWarning, SchemaError, warn


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """Rows of many tasks, checked against a schema; created by `Table.from_frame`.

    Attributes
    ----------
    X : pandas.DataFrame, (row, feature)
        The index holds the row numbers of the input frame; ``X.attrs["ehrmeta_schema"]`` the
        schema, which estimators read.
    y : ndarray of float64, (row,)
    groups : ndarray, (row,)
        Task ids.
    time : ndarray of float64, (row,), or None
        In the unit of the schema's clock.
    treatment : ndarray, (row,), or None
    outcome_time : ndarray of float64, (row,), or None
        Time at which the outcome became known.
    schema : Schema
    findings : tuple of Finding
        Values that were masked and rows that were dropped.

    Examples
    --------
    >>> frame = pd.DataFrame(
    ...     {"patient": [1, 1, 2], "day": [0, 9, 0], "age": [40, 40, 61], "hdl": [50, 55, 38]}
    ... )
    >>> table = Table.from_frame(
    ...     frame, task="patient", time="day", outcome="hdl", units={"age": "a", "hdl": "mg/dL"}
    ... )
    >>> table
    Table: 3 rows, 2 tasks (1 to 2 rows each, median 1.5)
    task     patient (patient)
    outcome  hdl [mg/dL]
    time     day [d]
    static   age [a]
    """

    X: pd.DataFrame
    y: NDArray[np.float64]
    groups: NDArray[Any]
    time: NDArray[np.float64] | None
    treatment: NDArray[Any] | None
    outcome_time: NDArray[np.float64] | None
    schema: Schema
    findings: tuple[Finding, ...] = ()

    check = staticmethod(check_table)

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        schema: Schema | None = None,
        *,
        on_missing_outcome: Literal["error", "drop"] = "error",
        on_constant_outcome: Literal["error", "allow"] = "error",
        task: str | None = None,
        outcome: str | Outcome | None = None,
        time: str | Clock | None = None,
        treatment: str | None = None,
        outcome_time: str | None = None,
        task_kind: TaskKind | None = None,
        on_duplicate: OnDuplicate | None = None,
        censored: Censored | None = None,
        features: Sequence[str] | None = None,
        measured: Sequence[str] | None = None,
        known: Sequence[str] | None = None,
        units: Mapping[str, str] | None = None,
        ranges: Mapping[str, tuple[float | None, float | None]] | None = None,
    ) -> Table:
        """Check a frame and create a table; rows keep their order.

        Values outside a feature's plausible range become NaN, and rows whose outcome is outside
        its range are dropped, with one `DataWarning`.

        Parameters
        ----------
        frame : pandas, polars or pyarrow frame, or 2-D array, (row, column)
        schema : Schema, optional
            Only its columns are read. By default `Schema.infer` infers one from the frame and
            the roles.
        on_missing_outcome : {"error", "drop"}
            Whether rows without an outcome raise or are dropped and counted.
        on_constant_outcome : {"error", "allow"}
            A constant outcome usually is the wrong column, except in a small support.
        task, outcome, time, treatment, outcome_time, task_kind, on_duplicate, censored, \
features, measured, known, units, ranges
            Roles of columns, as in `Schema.infer`; without a schema only.

        Raises
        ------
        SchemaError
            Columns are missing or unnamed, or hold text but are numeric in the schema.
        GroupError
            Task ids are missing.
        DataError
            No valid row; the outcome is text, constant or missing; a time is missing or unreadable;
            or (task, time) repeats in a table of patients.
        """
        roles: dict[str, Any] = {
            "task": task,
            "outcome": outcome,
            "time": time,
            "treatment": treatment,
            "outcome_time": outcome_time,
            "task_kind": task_kind,
            "on_duplicate": on_duplicate,
            "censored": censored,
            "features": features,
            "measured": measured,
            "known": known,
            "units": units,
            "ranges": ranges,
        }
        roles = {name: role for name, role in roles.items() if role is not None}
        frame = collected(frame)
        if schema is None:
            schema = Schema.infer(frame, **roles)
        elif roles:
            raise SchemaError("both a schema and column roles were given. Pass one or the other.")
        if schema.task is None or schema.outcome is None:
            raise SchemaError("a table needs a task and an outcome. Pass task=... and outcome=...")
        if not schema.features and schema.time is None:
            raise SchemaError("the table has no feature and no time. Name a column of either.")
        clean = clean_rows(
            frame,
            schema,
            on_missing_outcome=on_missing_outcome,
            on_constant_outcome=on_constant_outcome,
        )
        for finding in clean.findings:
            if finding.error is not None:
                raise finding.error
        timed = _with_zone(schema, frame)
        if clean.implausible:
            warn(DataWarning(*clean.implausible))
        columns = clean.columns
        X = pd.DataFrame({name: columns[name] for name in schema.names}, index=clean.rows)
        X.attrs["ehrmeta_schema"] = timed.to_dict()
        return cls(
            X=X,
            y=columns[schema.outcome.name],
            groups=columns[schema.task],
            time=columns.get(schema.time.name if schema.time else ""),
            treatment=columns.get(schema.treatment or ""),
            outcome_time=columns.get(schema.outcome_time or ""),
            schema=timed,
            findings=clean.findings,
        )

    def __len__(self) -> int:
        return len(self.y)

    @cached_property
    def tasks(self) -> TaskIndex:
        """The tasks, with rows sorted by time."""
        return index_tasks(self.groups, self.time)

    @property
    def n_tasks(self) -> int:
        """Number of tasks."""
        return self.tasks.n_tasks

    def take(self, rows: ArrayLike) -> Table:
        """Select rows by a mask or by positions, such as ``table.take(table.groups == label)``.

        Parameters
        ----------
        rows : array-like of bool, (row,), or of int
        """
        index = np.asarray(rows)
        if index.dtype == bool:
            if index.shape != (len(self),):
                raise DataError(
                    f"mask has shape {index.shape}. Pass {len(self):,} bools, one per row."
                )
            index = np.flatnonzero(index)
        index = index.astype(np.int64)
        X = self.X.iloc[index]
        X.attrs = {"ehrmeta_schema": self.schema.to_dict()}
        arrays = {name: getattr(self, name) for name in ("time", "treatment", "outcome_time")}
        selected = {name: values[index] for name, values in arrays.items() if values is not None}
        return dataclasses.replace(
            self, X=X, y=self.y[index], groups=self.groups[index], **selected
        )

    def with_findings(self, *findings: Finding) -> Table:
        """Add findings."""
        return dataclasses.replace(self, findings=(*self.findings, *findings))

    def split(
        self, test_fraction: float = 0.2, random_state: RandomState = None
    ) -> tuple[Table, Table]:
        """Split by task into training and test tables: no patient is in both.

        Parameters
        ----------
        test_fraction : float in (0, 1)
            Of the tasks.
        random_state : int, Generator or None
        """
        train, test = split_tasks(self.tasks.labels, test_fraction, random_state)
        return self.take(train[self.tasks.codes]), self.take(test[self.tasks.codes])

    def kfold(
        self, n_splits: int = 5, random_state: RandomState = None
    ) -> Iterator[tuple[Table, Table]]:
        """Yield training and test tables of K-fold cross-validation by task."""
        folds = PatientKFold(n_splits, random_state=random_state)
        for train, test in folds.split(self.X, groups=self.groups):
            yield self.take(train), self.take(test)

    def support_query(
        self,
        shots: int | None = None,
        *,
        before: ArrayLike | str | None = None,
        random_state: RandomState = None,
    ) -> tuple[Table, Table]:
        """Split the rows of every task into support and query, without look-ahead.

        Parameters
        ----------
        shots : int, optional
            Support size: the first rows by time, random rows in a table without time. Tasks
            without a query row are dropped and counted in the findings.
        before : float, ISO date, or array-like, (task,), optional
            Prediction time: the support is the rows up to it whose outcome is known by then.
        random_state : int, Generator or None
            Used without time.

        Examples
        --------
        >>> frame = pd.DataFrame(
        ...     {"id": [1, 1, 1], "day": [2, 0, 1], "age": 40, "hdl": [50, 52, 55]}
        ... )
        >>> table = Table.from_frame(frame, task="id", time="day", outcome="hdl")
        >>> support, query = table.support_query(shots=1)
        >>> support.y, query.y
        (array([52.]), array([50., 55.]))
        """
        if (shots is None) == (before is None):
            raise DataError("pass either shots=... or before=..., not both.")
        if shots is None:
            support, query = self._before(before)
        elif self.time is None:
            support, query = random_k(self.tasks, shots, random_state)
        else:
            support, query = first_k(
                self.tasks, shots, time=self.time, outcome_time=self.outcome_time
            )
        scored = np.unique(self.tasks.codes[query])
        if len(scored) == 0:
            raise DataError(
                f"none of {self.n_tasks} tasks has a row to predict after its support (the largest "
                f"has {int(self.tasks.sizes.max())} rows). Use fewer shots or an earlier time."
            )
        if len(scored) == self.n_tasks:
            return self.take(support), self.take(query)
        what = f"of {self.n_tasks:,} tasks without a row to predict"
        remedy = "Use fewer shots or an earlier time to keep them."
        unscored = Finding(what, str(self.schema.task), self.n_tasks - len(scored), remedy)
        return self.take(support).with_findings(unscored), self.take(query).with_findings(unscored)

    def _before(self, cutoff: Any) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        clock = self.schema.time
        if clock is None or self.time is None:
            raise SchemaError("before=... needs a time column. Name it, or pass shots=...")
        if np.asarray(cutoff).dtype.kind not in "biuf":
            dates = np.atleast_1d(cutoff)
            cutoff = to_time(dates, unit=clock.unit, origin=clock.origin, name="before")
            cutoff = cutoff if len(cutoff) > 1 else cutoff[0]
        return before(self.tasks, self.time, cutoff, outcome_time=self.outcome_time)

    def __repr__(self) -> str:
        sizes = self.tasks.sizes
        head = f"Table: {len(self):,} rows"
        if len(self):
            spread = f"{sizes.min():,} to {sizes.max():,} rows each, median {np.median(sizes):g}"
            head += f", {self.n_tasks:,} tasks ({spread})"
        return "\n".join([head, repr(self.schema), *(f"! {f}" for f in self.findings)])


def _with_zone(schema: Schema, frame: Any) -> Schema:
    """The schema, with whether its times have a zone."""
    clock = schema.time
    zoned = None if clock is None else has_zone(native_column(frame, clock.name))
    if clock is None or zoned is None:
        return schema
    return dataclasses.replace(schema, time=dataclasses.replace(clock, zoned=zoned))
