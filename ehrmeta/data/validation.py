"""What is wrong with a table, all of it at once: the readable list behind `check_table`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data.clock import are_written_dates, to_time
from ehrmeta.data.column_checks import (
    ON_DUPLICATE,
    Columns,
    Finding,
    check_binary,
    check_column,
    check_complete,
    check_outcome,
    copies_of,
    gaps_in,
    identifiers,
    merge_duplicates,
    numbers_in,
    outside,
    require_columns,
    task_index,
    written_dates,
)
from ehrmeta.data.columns import read_column, read_columns
from ehrmeta.data.schema import Outcome, Schema
from ehrmeta.data.tasks import index_tasks
from ehrmeta.errors import DataError, Remedy, SchemaError, did_you_mean

__all__ = [
    "CleanRows",
    "Findings",
    "check_table",
    "clean_rows",
]

Found = Iterator[Finding]
Mask = NDArray[np.bool_]


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
                "remedy": str(finding.remedy),
            }
            for finding in self
        ]
        return pd.DataFrame(rows, columns=["column", "level", "count", "what", "remedy"])

    def __repr__(self) -> str:
        lines = [f"{'error  ' if f.is_error else 'warning'}  {f}" for f in self]
        return "\n".join(lines) or "nothing found"


def check_table(frame: Any, schema: Schema, *, strict: bool = False) -> Findings:
    """Everything that is wrong, or odd, about a table: nothing is changed.

    Types, units and plausible ranges, missing and repeated keys, times that cannot be read or
    are out of order, outcomes known too early, copies of the outcome among the features,
    identifiers among them, constant and mostly missing columns.

    Parameters
    ----------
    frame : pandas, polars or pyarrow frame, or 2-D array
    schema : Schema
    strict : bool
        Whether any finding raises.

    Returns
    -------
    Findings
        Errors, which keep `Table.from_frame` from using the table, then warnings.

    Raises
    ------
    DataError
        Strict, and something was found; the message lists it.

    Examples
    --------
    >>> import pandas as pd
    >>> from ehrmeta import Clock, Feature, Outcome
    >>> frame = pd.DataFrame({"id": [1, 1, 2], "day": [0, 0, 1], "age": 40, "hdl": [50, 51, 3]})
    >>> schema = Schema((Feature("age"),), Outcome("hdl"), task="id", time=Clock("day"))
    >>> check_table(frame, schema)
    error    column 'id': 1 row repeating a (id, day) pair. Drop them, or choose \
on_duplicate='first', 'last', 'mean' or 'allow'.
    warning  column 'age': 1 distinct value in the column: it never varies. It says nothing: \
drop it.
    """
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
    ordered = Findings(sorted(found, key=lambda finding: not finding.is_error))
    if strict and ordered:
        raise DataError(f"{len(ordered)} findings in the table:\n{ordered!r}")
    return ordered


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
                ON_DUPLICATE,
                is_error=schema.on_duplicate == "error",
            )


def _alike(labels: NDArray[Any]) -> int:
    """Labels that are another one, but for capitals and white space."""
    if labels.dtype != object:
        return 0
    plain = pd.Series(labels).str.casefold().str.replace(r"\s+", "", regex=True)
    return int(plain.duplicated().sum())


@dataclass(frozen=True)
class CleanRows:
    """The rows that a table keeps.

    Attributes
    ----------
    columns : dict of str to ndarray, (row,)
        Of the schema; times are numbers.
    rows : ndarray of int64, (row,)
        Their numbers in the frame.
    findings : tuple of Finding
        What was masked, left out, merged or is odd.
    implausible : tuple of Finding
        Those to warn of: values outside their range, dates read as numbers.
    """

    columns: Columns
    rows: NDArray[np.int64]
    findings: tuple[Finding, ...]
    implausible: tuple[Finding, ...]


def clean_rows(columns: Columns, schema: Schema, on_missing_outcome: str) -> CleanRows:
    """Check the columns of a schema; see `Table.from_frame`."""
    outcome, task = schema.outcome, schema.task
    if task is None or outcome is None:
        raise SchemaError("a table needs a task and an outcome. Pass task=... and outcome=...")
    if not schema.features:
        raise SchemaError(
            "no column is left as a feature. Add one; for time alone, copy the time column under "
            "another name."
        )
    require_columns(columns, schema.columns)
    columns = {name: columns[name] for name in schema.columns}
    task_index(columns, task, None)
    columns[outcome.name] = check_outcome(columns[outcome.name], outcome)
    check_binary(columns, schema.features)
    if schema.treatment is not None:
        check_complete(columns, (schema.treatment,))
    implausible = _read_times(columns, schema)

    present, findings = _with_outcome(columns[outcome.name], outcome, on_missing_outcome)
    plausible, left_out = _in_range(columns[outcome.name], outcome)
    columns, masked = _mask_features(columns, schema)
    implausible += left_out + masked
    findings += implausible
    rows = np.flatnonzero(present & plausible)
    columns = {name: values[rows] for name, values in columns.items()}
    if schema.time is not None and schema.task_kind == "patient":
        columns, kept = _without_duplicates(columns, schema, rows)
        if len(kept) < len(rows):
            findings += (
                Finding(
                    f"rows that repeated a (task, time) pair: kept the {schema.on_duplicate}",
                    task,
                    len(rows) - len(kept),
                    Remedy("other-repeats", "Change on_duplicate if another is meant."),
                ),
            )
            rows = rows[kept]
    _check_left(columns[outcome.name], outcome)
    return CleanRows(columns, rows, findings, implausible)


def _read_times(columns: Columns, schema: Schema) -> tuple[Finding, ...]:
    """Put times as numbers into the columns; the findings are odd ones."""
    if schema.time is None:
        return ()
    clock = schema.time
    findings: tuple[Finding, ...] = ()
    for name in (clock.name, schema.outcome_time):
        if name is not None:
            if are_written_dates(columns[name]):
                findings += (written_dates(name, clock.unit, len(columns[name])),)
            columns[name] = to_time(columns[name], unit=clock.unit, origin=clock.origin, name=name)
    if schema.outcome_time is not None:
        early = np.flatnonzero(columns[schema.outcome_time] < columns[clock.name])
        if len(early):
            raise DataError(
                f"column '{schema.outcome_time}': in {len(early)} rows (first: row {early[0]}) the "
                f"outcome is known before the row's own '{clock.name}'. Correct one of them."
            )
    return findings


def _with_outcome(
    y: NDArray[np.float64], outcome: Outcome, on_missing: str
) -> tuple[Mask, tuple[Finding, ...]]:
    missing = np.isnan(y)
    count = int(missing.sum())
    if count == 0:
        return ~missing, ()
    if on_missing != "drop":
        raise DataError(
            f"outcome '{outcome.name}' is missing (NaN) in {count} of {len(y)} rows (first: row "
            f"{np.flatnonzero(missing)[0]}).",
            Remedy("drop-missing", "Pass on_missing_outcome='drop' to leave them out."),
        )
    remedy = "Fill it in to keep them."
    return ~missing, (Finding("rows left out: no outcome", outcome.name, count, remedy),)


def _in_range(y: NDArray[np.float64], outcome: Outcome) -> tuple[Mask, tuple[Finding, ...]]:
    wrong = outside(y, outcome)
    if not wrong.any():
        return ~wrong, ()
    what = f"rows left out: outcome outside {_range(outcome)}"
    return ~wrong, (Finding(what, outcome.name, int(wrong.sum()), "Check unit and range."),)


def _mask_features(columns: Columns, schema: Schema) -> tuple[Columns, tuple[Finding, ...]]:
    findings: tuple[Finding, ...] = ()
    masked = dict(columns)
    for feature in schema.features:
        values = columns[feature.name]
        if feature.kind == "categorical":
            continue
        if values.dtype.kind not in "biuf":
            raise SchemaError(
                f"column '{feature.name}' is a {feature.kind} feature, but holds text or dates. "
                "Convert it to numbers, or declare it categorical."
            )
        wrong = outside(values, feature)
        if wrong.any():
            masked[feature.name] = np.where(wrong, np.nan, values)
            what = f"values set to missing: outside {_range(feature)}"
            findings += (Finding(what, feature.name, int(wrong.sum()), "Check unit and range."),)
    return masked, findings


def _without_duplicates(
    columns: Columns, schema: Schema, rows: NDArray[np.int64]
) -> tuple[Columns, NDArray[np.int64]]:
    n_rows = len(columns[str(schema.task)])
    if schema.on_duplicate == "allow" or n_rows == 0 or schema.time is None:
        return columns, np.arange(n_rows)
    time = columns[schema.time.name]
    tasks = index_tasks(columns[str(schema.task)], time)
    numeric = tuple(f.name for f in schema.features if f.kind == "numeric")
    average = (*numeric, schema.outcome.name) if schema.outcome else numeric
    columns, keep = merge_duplicates(columns, tasks, time, schema.on_duplicate, average, rows)
    return {name: values[keep] for name, values in columns.items()}, keep


def _check_left(y: NDArray[np.float64], outcome: Outcome) -> None:
    if len(y) == 0:
        raise DataError(
            f"no row is left: every outcome '{outcome.name}' is missing or out of range. Check its "
            "unit and range."
        )


def _range(column: Any) -> str:
    low = "" if column.low is None else f"{column.low:g}"
    high = "" if column.high is None else f"{column.high:g}"
    words = f"{low} to {high}" if low and high else f"{low} and above" if low else f"up to {high}"
    return f"{words} {column.unit}".strip()
