"""From columns to usable rows: what is masked, left out or merged, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ehrmeta.data import checks
from ehrmeta.data.checks import Columns, Finding
from ehrmeta.data.clock import are_written_dates, to_time
from ehrmeta.data.schema import Outcome, Schema
from ehrmeta.data.tasks import index_tasks
from ehrmeta.errors import DataError, SchemaError

__all__ = ["CleanRows", "clean_rows"]

Mask = NDArray[np.bool_]


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
    checks.require_columns(columns, schema.columns)
    columns = {name: columns[name] for name in schema.columns}
    checks.task_index(columns, task, None)
    columns[outcome.name] = checks.check_outcome(columns[outcome.name], outcome)
    checks.check_binary(columns, schema.features)
    if schema.treatment is not None:
        checks.check_complete(columns, (schema.treatment,))
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
                    "Change on_duplicate if another is meant.",
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
                findings += (checks.written_dates(name, clock.unit, len(columns[name])),)
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
            f"{np.flatnonzero(missing)[0]}). Pass on_missing_outcome='drop' to leave them out."
        )
    remedy = "Fill it in to keep them."
    return ~missing, (Finding("rows left out: no outcome", outcome.name, count, remedy),)


def _in_range(y: NDArray[np.float64], outcome: Outcome) -> tuple[Mask, tuple[Finding, ...]]:
    wrong = checks.outside(y, outcome)
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
        wrong = checks.outside(values, feature)
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
    columns, keep = checks.merge_duplicates(
        columns, tasks, time, schema.on_duplicate, average, rows
    )
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
