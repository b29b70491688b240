"""Checking and cleaning of tables: `check_table` lists all findings, `Table` raises the first."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data.censored import CHOOSE, FLAG, read_limits, resolve_censored
from ehrmeta.data.clock import are_numeric_dates, check_zones, has_zone, to_time
from ehrmeta.data.columns import Columns, Mask, collected, native_column, read_column, read_columns
from ehrmeta.data.findings import (
    CONSTANT,
    Finding,
    Findings,
    numeric_dates,
    odd_codes,
    odd_column,
    odd_keys,
)
from ehrmeta.data.schema import Feature, Outcome, Schema
from ehrmeta.data.tasks import index_tasks
from ehrmeta.errors import DataError, GroupError, Remedy, SchemaError, did_you_mean

_REPEATS = Remedy(
    "one-row-per-time", "Drop them, or choose on_duplicate='first', 'last', 'mean' or 'allow'."
)


def check_table(frame: Any, schema: Schema, *, strict: bool = False) -> Findings:
    """Check a table against a schema and list all findings, without changing it.

    Checks types, units and plausible ranges, missing and repeated keys, unreadable and unsorted
    times, outcomes known too early, features that copy the outcome or identify rows, and constant
    or mostly missing columns.

    Parameters
    ----------
    frame : pandas, polars or pyarrow frame, or 2-D array
    schema : Schema
    strict : bool
        Whether any finding raises.

    Returns
    -------
    Findings
        Errors, which `Table.from_frame` raises, then warnings. If `strict`, a `DataError` lists
        them instead.

    Examples
    --------
    >>> import pandas as pd
    >>> from ehrmeta import Clock, Feature, Outcome
    >>> frame = pd.DataFrame({"id": [1, 1, 2], "day": [0, 0, 1], "age": 40, "hdl": [50, 51, 3]})
    >>> schema = Schema((Feature("age"),), Outcome("hdl"), task="id", time=Clock("day"))
    >>> check_table(frame, schema)
    error    column 'id': 1 row repeating a (id, day) pair. Drop them, or choose \
on_duplicate='first', 'last', 'mean' or 'allow'.
    warning  column 'id': 1 task with two rows or more: too few to tell how tasks differ. \
Check the ids, or pass more tasks.
    warning  column 'age': 1 distinct value in the column: it is constant. Drop it.
    """
    rows = clean_rows(frame, schema)
    findings = [*rows.findings, *odd_keys(rows.read, schema)]
    for column in (schema.outcome, *schema.features):
        if column is not None and column.name in rows.read:
            findings += odd_column(rows.read, column, schema)
    ordered = Findings(sorted(findings, key=lambda finding: not finding.is_error))
    if strict and ordered:
        raise DataError(f"{len(ordered)} findings in the table:\n{ordered!r}")
    return ordered


@dataclass(frozen=True)
class CleanRows:
    """The valid rows of a table, and the findings of its checks.

    Attributes
    ----------
    columns : dict of str to ndarray, (row,)
        Columns of the schema without an error, times as numbers, implausible values masked.
    rows : ndarray of int64, (row,)
        Row numbers in the frame.
    read : dict of str to ndarray, (row of the frame,)
        The columns before rows were dropped and values masked.
    findings : tuple of Finding
        Errors, and values or rows that were masked, dropped or merged.
    implausible : tuple of Finding
        Findings to warn of: values outside their range, dates read as numbers.
    """

    columns: Columns
    rows: NDArray[np.int64]
    read: Columns
    findings: tuple[Finding, ...]
    implausible: tuple[Finding, ...]


def clean_rows(
    frame: Any,
    schema: Schema,
    *,
    on_missing_outcome: Literal["error", "drop"] = "error",
    on_constant_outcome: Literal["error", "allow"] = "error",
) -> CleanRows:
    """Read and check the columns of a schema, then mask values and drop or merge rows.

    A column with an error is skipped by later checks. Parameters are those of `Table.from_frame`.
    """
    frame = collected(frame)
    columns, findings = _read(frame, schema)
    findings += _check_zones(frame, columns, schema)
    for check in (_check_keys, _check_times, _check_types):
        findings += check(columns, schema)
    read, rows = dict(columns), np.arange(len(next(iter(columns.values()), ())))
    dates = [finding for finding in findings if not finding.is_error]
    implausible: list[Finding] = []
    outcome = schema.outcome if schema.outcome and schema.outcome.name in columns else None
    if outcome is not None:
        missing = np.isnan(read[outcome.name])
        outside = outside_range(read[outcome.name], outcome)
        findings += _missing_outcomes(missing, outcome, on_missing_outcome)
        implausible += _implausible(outside, outcome, "rows dropped: outcome")
        rows = np.flatnonzero(~outside & ~(missing & (on_missing_outcome == "drop")))
    for feature in schema.features:
        if feature.name in columns and feature.kind != "categorical":
            outside = outside_range(columns[feature.name], feature)
            implausible += _implausible(outside, feature, "values set to missing:")
            if outside.any():
                columns[feature.name] = np.where(outside, np.nan, columns[feature.name])
    columns = {name: values[rows] for name, values in columns.items()}
    columns, kept, repeats = _merge_repeats(columns, schema, rows)
    told = [part.name for part in (schema.outcome, *schema.features) if part is not None]
    implausible += odd_codes(columns, [name for name in told if name in columns])
    findings += [*implausible, *repeats]
    if outcome is not None:
        findings += _check_varies(columns[outcome.name], outcome, on_constant_outcome)
    return CleanRows(columns, rows[kept], read, tuple(findings), (*dates, *implausible))


def _error(
    what: str,
    column: str,
    count: int,
    remedy: str | Remedy,
    *,
    first: object = None,
    kind: type[DataError] = DataError,
) -> Finding:
    """A finding with an error, whose message also names the first occurrence."""
    sentence = str(Finding(what, column, count, ""))
    if first is not None:
        sentence = f"{sentence[:-1]} (first: {first})."
    return Finding(what, column, count, remedy, kind(sentence, remedy))


def _unreadable(error: DataError, name: str, n_rows: int) -> Finding:
    """The finding of an error raised while a column was read."""
    reason = str(error).removeprefix(f"column '{name}'").removeprefix(":").strip().rstrip(".")
    what = f"rows of an unreadable column: {reason}"
    return Finding(what, name, n_rows, "", error.with_traceback(None))


def _read(frame: Any, schema: Schema) -> tuple[Columns, list[Finding]]:
    """The readable columns of the schema, and the findings of the others."""
    findings: list[Finding] = []
    try:
        columns = read_columns(frame)
        names = list(columns)
    except DataError as error:
        is_frame = nw.dependencies.is_into_dataframe(frame)
        if isinstance(error, SchemaError) or not is_frame or not len(frame):
            raise
        native = nw.from_native(frame, eager_only=True)
        columns, names = {}, list(map(str, native.columns))
        for name in (name for name in schema.columns if name in names):
            try:
                columns[name] = read_column(native[name], name)
            except DataError as unreadable:
                findings.append(_unreadable(unreadable, name, len(native)))
    columns |= _without_censored(columns, schema)
    for name in schema.columns:
        if name not in (*names, *columns):
            hint = did_you_mean(name, names)
            missing = SchemaError(f"no column '{name}'.", hint)
            findings.append(Finding("column missing", name, 1, hint, missing))
    return {name: columns[name] for name in schema.columns if name in columns}, findings


def _without_censored(columns: Columns, schema: Schema) -> Columns:
    """Numeric columns with the schema's choice for censored values, and its columns of flags."""
    numeric = [f.name for f in schema.features if f.kind == "numeric"]
    numeric += [schema.outcome.name] if schema.outcome is not None else []
    read = {name: columns[name] for name in numeric if name in columns}
    resolved = resolve_censored(read, schema.censored)
    if schema.censored == "column":  # where nothing is censored
        for name, values in read.items():
            if name + FLAG in numeric and name + FLAG not in columns:
                resolved.setdefault(name + FLAG, np.zeros(len(values)))
    return resolved


def _check_keys(columns: Columns, schema: Schema) -> Iterator[Finding]:
    """Check that every row has a task, and a treatment if the schema names one."""
    remedy = "Fill them in or drop those rows."
    for name, kind in ((schema.task, GroupError), (schema.treatment, DataError)):
        if name is None or name not in columns:
            continue
        missing = np.flatnonzero(pd.isna(columns[name]))
        if len(missing):
            first = f"row {missing[0]}"
            yield _error("missing values", name, len(missing), remedy, first=first, kind=kind)
            del columns[name]
        elif name == schema.task:
            try:
                index_tasks(columns[name])
            except GroupError as error:
                named = GroupError(f"column '{name}':", *error.args)
                yield _unreadable(named, name, len(columns.pop(name)))


def _check_times(columns: Columns, schema: Schema) -> Iterator[Finding]:
    """Convert times to numbers; check that outcomes are not known before their rows."""
    clock, known = schema.time, schema.outcome_time
    for name in (clock and clock.name, known):
        if clock is None or name is None or name not in columns:
            continue
        if are_numeric_dates(columns[name]):
            yield numeric_dates(name, clock.unit, len(columns[name]))
        try:
            columns[name] = to_time(columns[name], unit=clock.unit, origin=clock.origin, name=name)
        except DataError as error:
            yield _unreadable(error, name, len(columns.pop(name)))
    if clock is not None and clock.name in columns and known in columns:
        early = np.flatnonzero(columns[known] < columns[clock.name])
        if len(early):
            what = f"outcomes known before the '{clock.name}' of their row"
            remedy = "Correct one of the times, or drop these rows."
            yield _error(what, known, len(early), remedy, first=f"row {early[0]}")


def _check_zones(frame: Any, columns: Columns, schema: Schema) -> Iterator[Finding]:
    """Check that dates have a time zone, or none, as those of the schema and of each other."""
    clock = schema.time
    if clock is None:
        return
    before, what = clock.zoned, "those that the schema describes"
    for name in (clock.name, schema.outcome_time):
        if name is None or name not in columns:
            continue
        zoned = has_zone(native_column(frame, name))
        try:
            check_zones(zoned, before, what, name)
        except DataError as error:
            yield _unreadable(error, name, len(columns.pop(name)))
        before, what = (before if zoned is None else zoned), f"those of '{clock.name}'"


def _check_types(columns: Columns, schema: Schema) -> Iterator[Finding]:
    """Check that outcome and numeric features are numbers, and binary ones 0 and 1."""
    for column in (schema.outcome, *schema.features):
        if column is None or column.name not in columns:
            continue
        kind = column.kind if isinstance(column, Feature) else "outcome"
        values = columns[column.name]
        if values.dtype.kind not in "biuf" and kind != "categorical":
            held = "dates" if values.dtype.kind in "mM" else "text"
            remedy: str | Remedy = "Convert them to numbers, or declare it categorical."
            if kind == "outcome":
                remedy = "Convert them to numbers; code two classes as 0 and 1."
            count = int((~pd.isna(values)).sum())
            limits = read_limits(values)
            if limits is not None:
                below, above = int((limits.side < 0).sum()), int((limits.side > 0).sum())
                held = f"{held}, of which {below:,} are below and {above:,} above a limit"
                remedy = CHOOSE
            error = DataError if kind == "outcome" else SchemaError
            yield _error(f"values of {held}, not numbers", column.name, count, remedy, kind=error)
            del columns[column.name]
        elif kind == "outcome":
            columns[column.name] = values.astype(np.float64)
        elif kind == "binary":
            other = np.flatnonzero(~np.isin(values, (0, 1)) & ~np.isnan(values))
            if len(other):
                what, remedy = "values other than 0 and 1", "Recode them, or declare another kind."
                yield _error(what, column.name, len(other), remedy, first=f"row {other[0]}")
                del columns[column.name]


def _missing_outcomes(missing: Mask, outcome: Outcome, on_missing: str) -> Iterator[Finding]:
    count = int(missing.sum())
    if count and on_missing == "drop":
        yield Finding("rows dropped: no outcome", outcome.name, count, "Fill it in to keep them.")
    elif count:
        advice = "Fill them in, or pass on_missing_outcome='drop' to drop the rows."
        remedy, first = Remedy("drop-missing", advice), f"row {np.flatnonzero(missing)[0]}"
        yield _error("missing outcomes", outcome.name, count, remedy, first=first)


def _implausible(outside: Mask, column: Feature | Outcome, what: str) -> Iterator[Finding]:
    if outside.any():
        low = "" if column.low is None else f"{column.low:g}"
        high = "" if column.high is None else f"{column.high:g}"
        ends = (
            f"{low} to {high}" if low and high else f"{low} and above" if low else f"up to {high}"
        )
        what = f"{what} outside {ends} {column.unit}".rstrip()
        remedy = "Check unit and range."
        if outside.mean() > 0.5:
            remedy = f"These are most of {len(outside):,}: the range may be in another unit."
        yield Finding(what, column.name, int(outside.sum()), remedy)


def _check_varies(y: NDArray[np.float64], outcome: Outcome, on_constant: str) -> Iterator[Finding]:
    y = y[~np.isnan(y)]
    if len(y) == 0:
        what = "valid outcomes: all are missing or outside the plausible range"
        yield _error(what, outcome.name, 0, "Check its unit and range.")
    elif on_constant == "error" and np.ptp(y) == 0:
        yield _error(CONSTANT, outcome.name, 1, "Check the column.")


def _merge_repeats(
    columns: Columns, schema: Schema, numbers: NDArray[np.int64]
) -> tuple[Columns, NDArray[np.int64], list[Finding]]:
    """Resolve repeated (task, time) pairs by the schema's `on_duplicate`.

    ``mean`` averages the non-missing values of numeric features and outcome, and takes the first
    row otherwise. Returns the merged columns, the positions of the kept rows, and findings, which
    name rows by their `numbers` in the frame.
    """
    kept = np.arange(len(numbers))
    task, clock, policy = schema.task, schema.time, schema.on_duplicate
    if task not in columns or clock is None or clock.name not in columns or not len(numbers):
        return columns, kept, []
    if schema.task_kind == "cohort" or policy == "allow":
        return columns, kept, []
    time = columns[clock.name]
    tasks = index_tasks(columns[task], time)
    order = tasks.order
    is_new = np.append(True, np.diff(time[order]) != 0)
    is_new[tasks.starts[:-1]] = True
    first = order[is_new]  # the sort is stable: the earliest row of every pair
    count = len(order) - len(first)
    if count == 0:
        return columns, kept, []
    if policy == "error":
        at = int(np.flatnonzero(~is_new)[0])
        where = f"task {tasks.codes[order[at]]} of {tasks.n_tasks}, rows {numbers[order[at - 1]]}"
        where += f" and {numbers[order[at]]}"
        what = f"rows repeating a ({task}, {clock.name}) pair"
        return columns, kept, [_error(what, task, count, _REPEATS, first=where)]
    kept = np.sort(order[np.append(is_new[1:], True)] if policy == "last" else first)
    if policy == "mean":
        pair = np.empty(len(order), dtype=np.int64)
        pair[order] = np.cumsum(is_new) - 1
        averaged = [f.name for f in schema.features if f.kind == "numeric"]
        averaged += [schema.outcome.name] if schema.outcome else []
        columns = columns | {name: _means(columns[name], pair, first) for name in averaged}
    finding = Finding(
        f"rows that repeated a (task, time) pair: kept the {policy}",
        task,
        count,
        Remedy("other-repeats", "Change on_duplicate to choose otherwise."),
    )
    return {name: values[kept] for name, values in columns.items()}, kept, [finding]


def _means(
    values: NDArray[Any], pair: NDArray[np.int64], first: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Replace the first value of every pair by the mean of the pair's non-missing values."""
    numbers = values.astype(np.float64)
    present = ~np.isnan(numbers)
    sums = np.bincount(pair[present], weights=numbers[present], minlength=len(first))
    counts = np.bincount(pair[present], minlength=len(first))
    numbers[first] = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return numbers


def outside_range(values: NDArray[np.float64], column: Feature | Outcome) -> Mask:
    """Mask of values outside the plausible range; missing values are not outside."""
    mask = np.zeros(len(values), dtype=bool)
    if column.low is not None:
        mask |= values < column.low
    if column.high is not None:
        mask |= values > column.high
    return mask
