"""What is wrong with a table, all of it at once: the readable list behind `Schema.check`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data.checks import Columns, Finding, written_dates
from ehrmeta.data.clock import are_written_dates, to_time
from ehrmeta.data.column_checks import (
    check_column,
    copies_of,
    gaps_in,
    identifiers,
    numbers_in,
)
from ehrmeta.data.columns import read_column, read_columns
from ehrmeta.data.schema import Schema
from ehrmeta.data.tasks import index_tasks
from ehrmeta.errors import DataError, SchemaError, did_you_mean

__all__ = ["Findings", "check_frame"]

Found = Iterator[Finding]


class Findings(tuple[Finding, ...]):
    """Findings of a check, errors first; prints as a list."""

    @property
    def errors(self) -> Findings:
        """Those that keep the table from being used."""
        return Findings(finding for finding in self if finding.is_error)

    def to_frame(self) -> pd.DataFrame:
        """One row per finding: column, level, count, what, remedy."""
        rows = [
            {
                "column": finding.column,
                "level": "error" if finding.is_error else "warning",
                "count": finding.count,
                "what": finding.what,
                "remedy": finding.remedy,
            }
            for finding in self
        ]
        return pd.DataFrame(rows, columns=["column", "level", "count", "what", "remedy"])

    def __repr__(self) -> str:
        lines = [f"{'error  ' if f.is_error else 'warning'}  {f}" for f in self]
        return "\n".join(lines) or "nothing found"


def check_frame(frame: Any, schema: Schema) -> Findings:
    """All findings of a table against a schema; see `Schema.check`."""
    columns, found = _read(frame)
    unread = {finding.column for finding in found}
    found = [finding for finding in found if finding.column in schema.columns]
    found += [
        Finding("column missing", name, 1, did_you_mean(name, columns), is_error=True)
        for name in schema.columns
        if name not in columns and name not in unread
    ]
    present = {name: columns[name] for name in schema.columns if name in columns}
    features = [feature for feature in schema.features if feature.name in present]
    time, findings = _times(present, schema)
    found += findings
    found += _keys(present, schema, time)
    outcome = None
    if schema.outcome is not None and schema.outcome.name in present:
        outcome = numbers_in(present[schema.outcome.name])
        found += check_column(present[schema.outcome.name], schema.outcome)
        found += gaps_in(present[schema.outcome.name], schema.outcome.name, outcome=True)
    for feature in features:
        values = present[feature.name]
        found += check_column(values, feature)
        found += gaps_in(values, feature.name)
        found += identifiers(values, feature, present, schema)
        if outcome is not None and feature.role != "measured":
            found += copies_of(
                values, feature, outcome, str(schema.outcome and schema.outcome.name)
            )
    return Findings(sorted(found, key=lambda finding: not finding.is_error))


def _read(frame: Any) -> tuple[Columns, list[Finding]]:
    """The columns that can be read, and what is wrong with the others."""
    try:
        return read_columns(frame), []
    except DataError as error:
        is_frame = nw.dependencies.is_into_dataframe(frame)
        if isinstance(error, SchemaError) or not is_frame or not len(frame):
            raise
    native = nw.from_native(frame, eager_only=True)
    columns, found = {}, []
    for name in map(str, native.columns):
        try:
            columns[name] = read_column(native[name], name)
        except DataError as error:
            found.append(_unreadable(error, name, len(native)))
    return columns, found


def _unreadable(error: DataError, name: str, n_rows: int) -> Finding:
    reason = str(error).removeprefix(f"column '{name}'").removeprefix(":").strip()
    return Finding(f"rows in a column that cannot be used: {reason}", name, n_rows, "", True)


def _times(columns: Columns, schema: Schema) -> tuple[NDArray[np.float64] | None, list[Finding]]:
    """Times as numbers, where they can be read."""
    clock = schema.time
    if clock is None or clock.name not in columns:
        return None, []
    found: list[Finding] = []
    read = {}
    for name in (clock.name, schema.outcome_time):
        if name is None or name not in columns:
            continue
        try:
            read[name] = to_time(columns[name], unit=clock.unit, origin=clock.origin, name=name)
        except DataError as error:
            found.append(_unreadable(error, name, len(columns[name])))
        if are_written_dates(columns[name]):
            found.append(written_dates(name, clock.unit, len(columns[name])))
    time = read.get(clock.name)
    known = read.get(schema.outcome_time or "")
    if time is not None and known is not None:
        early = int((known < time).sum())
        if early:
            what = f"outcomes known before the row's own '{clock.name}': the row comes after it"
            remedy = "Correct one of the times, or leave these rows out."
            found.append(Finding(what, str(schema.outcome_time), early, remedy, True))
    return time, found


def _keys(columns: Columns, schema: Schema, time: NDArray[np.float64] | None) -> Found:
    """Task ids, their order in time and their repeats."""
    for name in (schema.task, schema.treatment):
        if name is None or name not in columns:
            continue
        count = int(pd.isna(columns[name]).sum())
        if count:
            yield Finding("missing values", name, count, "Fill them in or drop those rows.", True)
            if name == schema.task:
                return
    if schema.task is None or schema.task not in columns:
        return
    tasks = index_tasks(columns[schema.task])
    codes = tasks.codes
    alike = _alike(tasks.labels)
    if alike:
        what = "ids that differ from another by capitals or spaces only"
        yield Finding(what, schema.task, alike, "Write every task's id in one way.")
    if codes.max() == 0:
        yield Finding("task only: nothing to learn across", schema.task, 1, "Check the column.")
    if time is None:
        return
    order = np.argsort(codes, kind="stable")
    same = np.diff(codes[order]) == 0
    unsorted = int((same & (np.diff(time[order]) < 0)).sum())
    clock = str(schema.time and schema.time.name)
    if unsorted:
        yield Finding(
            "rows earlier than the row before in their task",
            clock,
            unsorted,
            "They are put in order of time; check that the column is what you mean.",
        )
    if schema.task_kind == "patient":
        repeats = int(pd.DataFrame({"task": codes, "time": time}).duplicated().sum())
        if repeats:
            yield Finding(
                f"rows repeating a ({schema.task}, {clock}) pair",
                schema.task,
                repeats,
                "Drop them, or choose on_duplicate='first', 'last', 'mean' or 'allow'.",
                is_error=schema.on_duplicate == "error",
            )


def _alike(labels: NDArray[Any]) -> int:
    """Labels that are another one, but for capitals and white space."""
    if labels.dtype != object:
        return 0
    plain = pd.Series(labels).str.casefold().str.replace(r"\s+", "", regex=True)
    return int(plain.duplicated().sum())
