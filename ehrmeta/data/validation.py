"""What is wrong with a table, all of it at once: the readable list behind `Schema.check`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data.checks import Columns, Finding, outside, written_dates
from ehrmeta.data.clock import are_written_dates, to_time
from ehrmeta.data.columns import read_column, read_columns
from ehrmeta.data.roles import Feature, Outcome
from ehrmeta.data.schema import Schema
from ehrmeta.data.tasks import index_tasks
from ehrmeta.data.units import ANALYTES, analyte_named, convert_units, is_unit, plausible_units
from ehrmeta.errors import DataError, SchemaError, did_you_mean

__all__ = ["Findings", "check_frame"]

Found = Iterator[Finding]

_MOSTLY_MISSING = 0.5
_COPY = 0.999  # rank correlation from which a feature counts as a copy of the outcome
_FEWEST = 20  # rows from which shares mean something


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
        outcome = _numbers(present[schema.outcome.name])
        found += _column(present[schema.outcome.name], schema.outcome)
        found += _gaps(present[schema.outcome.name], schema.outcome.name, outcome=True)
    for feature in features:
        values = present[feature.name]
        found += _column(values, feature)
        found += _gaps(values, feature.name)
        found += _identifier(values, feature, present, schema)
        if outcome is not None and feature.role != "measured":
            found += _copy(values, feature, outcome, str(schema.outcome and schema.outcome.name))
    return Findings(sorted(found, key=lambda finding: not finding.is_error))


def _read(frame: Any) -> tuple[Columns, list[Finding]]:
    """The columns that can be read, and what is wrong with the others."""
    try:
        return read_columns(frame), []
    except DataError as error:
        if isinstance(error, SchemaError) or not nw.dependencies.is_into_dataframe(frame):
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
    codes = index_tasks(columns[schema.task]).codes
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


def _column(values: NDArray[Any], column: Feature | Outcome) -> Found:
    """Type, unit and range."""
    kind = column.kind if isinstance(column, Feature) else "numeric"
    if kind == "categorical":
        yield from _numbers_as_text(values, column.name)
        return
    numbers = _numbers(values)
    if numbers is None:
        found = "dates" if values.dtype.kind == "M" else "text"
        count = int((~pd.isna(values)).sum())
        remedy = "Convert them to numbers, for example '<5' to 5, or declare it categorical."
        yield Finding(f"values of {found}, not numbers", column.name, count, remedy, True)
        return
    if kind == "binary":
        other = int((~np.isin(numbers, (0, 1)) & ~np.isnan(numbers)).sum())
        if other:
            remedy = "Recode them, or declare another kind."
            yield Finding("values other than 0 and 1", column.name, other, remedy, True)
        return
    if column.unit and not is_unit(column.unit):
        yield Finding(
            f"unit, {column.unit!r}, is no UCUM code known here",
            column.name,
            1,
            "Units are then taken as they stand.",
        )
    yield from _range(numbers, column)


def _numbers_as_text(values: NDArray[Any], name: str) -> Found:
    """One '<5' among numbers turns a whole lab into a category."""
    if values.dtype != object:
        return
    present = pd.Series(values).dropna()
    odd = int(pd.to_numeric(present, errors="coerce").isna().sum())
    if odd < 0.5 * len(present):
        what = f"of {len(present):,} cells not numeric, so that all count as categories"
        remedy = "Replace them, for example '<5' by 5, to use the column as a number."
        yield Finding(what, name, odd, remedy)


def _range(numbers: NDArray[np.float64], column: Feature | Outcome) -> Found:
    """Values outside the schema's range, or what the analyte's name says of its unit."""
    wrong = int(outside(numbers, column).sum())
    if wrong:
        yield Finding(
            "values outside the plausible range",
            column.name,
            wrong,
            "They will be set to missing, or their rows left out for an outcome. Check the unit.",
        )
    name = analyte_named(column.name)
    finite = numbers[~np.isnan(numbers)]
    if name is None or column.unit not in ANALYTES[name].units or len(finite) < _FEWEST:
        return
    units = plausible_units(finite, name)
    if column.unit not in units:
        likely = f"They look like {' or '.join(units)}: " if units else ""
        yield Finding(
            f"values, mostly implausible for {name} in {column.unit}",
            column.name,
            len(finite),
            f"{likely}convert them with convert_units, or correct the unit.",
        )
    elif column.low is None and column.high is None:
        analyte = ANALYTES[name]
        first = convert_units(finite, name, source=column.unit, target=next(iter(analyte.units)))
        odd = int(((first < analyte.low) | (first > analyte.high)).sum())
        if odd:
            yield Finding(
                f"values implausible for {name} in {column.unit}",
                column.name,
                odd,
                "Declare a plausible range (low, high): features outside it count as missing, "
                "rows whose outcome is outside it are left out.",
            )


def _gaps(values: NDArray[Any], name: str, *, outcome: bool = False) -> Found:
    """Missing and constant columns."""
    missing = pd.isna(values)
    count, n = int(missing.sum()), len(values)
    if outcome and count:
        remedy = "Fill them in, or pass on_missing_outcome='drop' to leave the rows out."
        yield Finding("missing outcomes", name, count, remedy, True)
    elif n and count > _MOSTLY_MISSING * n:
        yield Finding(f"values missing of {n:,}", name, count, "Is the column worth keeping?")
    seen = values[~missing]
    if len(seen) and (seen == seen[0]).all():
        remedy = "Check the column." if outcome else "It says nothing: drop it."
        yield Finding("distinct value in the column: it never varies", name, 1, remedy, outcome)


def _identifier(values: NDArray[Any], feature: Feature, columns: Columns, schema: Schema) -> Found:
    """Features that name rows or tasks: text or whole numbers, nearly all different."""
    seen = values[~pd.isna(values)]
    if len(seen) < _FEWEST or feature.kind == "binary":
        return
    text = values.dtype == object
    if not text and not (np.mod(seen.astype(np.float64), 1) == 0).all():
        return
    distinct = len(pd.unique(seen))
    names_rows = distinct > (0.9 if text else 0.99) * len(seen)  # a row may be there twice
    names_tasks = False
    if feature.role == "static" and schema.task in columns:
        n_tasks = len(pd.unique(columns[str(schema.task)]))
        names_tasks = n_tasks >= _FEWEST and distinct > 0.95 * n_tasks
    if names_rows or names_tasks:
        of = "rows" if names_rows else "tasks"
        remedy = f"An identifier of {of} is no feature and would enter the model: leave it out."
        yield Finding(
            f"distinct values, nearly one for each of the {of}", feature.name, distinct, remedy
        )


def _copy(values: NDArray[Any], feature: Feature, outcome: NDArray[np.float64], name: str) -> Found:
    """Features that are the outcome in another form."""
    numbers = _numbers(values)
    if numbers is None:
        return
    both = np.isfinite(numbers) & np.isfinite(outcome)
    if both.sum() < _FEWEST or np.ptp(numbers[both]) == 0 or np.ptp(outcome[both]) == 0:
        return
    ranks = [pd.Series(column[both]).rank().to_numpy() for column in (numbers, outcome)]
    if abs(np.corrcoef(*ranks)[0, 1]) > _COPY:
        yield Finding(
            f"rows in which it follows the outcome '{name}' exactly",
            feature.name,
            int(both.sum()),
            "It gives the answer away: leave it out, or declare it measured if it is only known "
            "with the outcome.",
        )


def _numbers(values: NDArray[Any]) -> NDArray[np.float64] | None:
    """The column as numbers, or None for text and dates."""
    return values.astype(np.float64) if values.dtype.kind in "biuf" else None
