"""Tables for the command line: named columns of files in, checked tables out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import click
import numpy as np
import pandas as pd
from click.core import ParameterSource

from ehrmeta.data import Clock, Finding, Schema, Table, list_datasets, load_dataset
from ehrmeta.data.clock import SECONDS, to_time
from ehrmeta.data.columns import read_frame, require_columns
from ehrmeta.data.schema import OnDuplicate, TaskKind
from ehrmeta.errors import DataError, Remedy, SchemaError
from ehrmeta.estimators import Adapted, MetaRegressor
from ehrmeta.persistence import read_bundle, write_bundle

__all__ = [
    "ROLES",
    "check_held_out",
    "features_of",
    "groups_of",
    "in_command_words",
    "is_bundled",
    "joining_ids",
    "mark_held_out",
    "numbers",
    "read_rows",
    "read_support",
    "read_table",
    "read_training_table",
    "read_visits",
    "read_with_roles",
    "reworded",
    "schema_of",
    "table_options",
    "text_columns",
    "times_of",
    "writable",
]

Command = TypeVar("Command", bound=Callable[..., Any])
ROLES = (
    *("task", "target", "time", "time_unit", "features", "measured", "units", "ranges"),
    *("task_kind", "on_duplicate", "drop_missing_target"),
)
TABLES = (".csv", ".parquet")
# What a message says to do about it, by the kind of its remedy.
COMMAND_WORDS = {
    "ask-for-classes": "Pass a model of a number: risks of classes are not predicted here.",
    "convert-units": "{likely}convert them, or correct --unit.",
    "drop-missing": "Fill them in or drop those rows, as `fit` does with --drop-missing-target.",
    "fewer-shots": "Lower the numbers of --shots.",
    "fit-with-time": "Fit it with --time.",
    "give-range": "Write one, such as {name}=1:10.",
    "keep-small-tasks": "",
    "name-time": "Pass --time, or leave them out of --measured.",
    "new-groups": "Adapt them first, or pass --new-groups population or nan.",
    "numbers-at-fit": "Convert it to numbers, which it held at `fit`.",
    "numbers-or-text": "Write all of its cells as numbers, or all as text.",
    "one-row-per-time": "Drop them, or `fit` with --on-duplicate first, last, mean or allow.",
    "one-row-per-visit": "If tasks are patients, `fit` with --on-duplicate first, last or mean; if "
    "they are cohorts, with --task-kind cohort.",
    "one-time-zone": "Convert all rows to one zone.",
    "other-repeats": "`fit` with another --on-duplicate if another is meant.",
    "other-study": "Pass another --study, or run what it was made for.",
    "pass-a-model": "Pass a file of `fit`.",
    "robust-likelihood": "Look for gross errors in the target, or pass --likelihood student_t.",
    "several-tasks": "Pass as --task the column that tells patients apart.",
    "smaller-chunks": "",
    "smaller-steps": "Pass --likelihood student_t if the target holds gross errors.",
    "write-dates": "Write them as YYYY-MM-DD.",
    "write-range": "Write LOW:HIGH, LOW:HIGH:log or A,B,C.",
}


def is_bundled(table: str) -> bool:
    """Whether a name is that of a bundled data set; a file of that name goes first."""
    return table in list_datasets() and not Path(table).exists()


def read_rows(path: str, *, text: tuple[str, ...] = ()) -> pd.DataFrame:
    """A file as `read_frame` reads it, with a row at least and every column named once.

    pandas reads a second column ``hdl`` as ``hdl.1``: a copy of the outcome would predict it.
    """
    frame = read_frame(path, text=text)
    if Path(path).suffix.lower() == ".csv":
        header = pd.read_csv(path, header=None, nrows=1, dtype="str").iloc[0].dropna()
        repeated = list(header[header.duplicated()].unique())
        if repeated:
            raise SchemaError(
                f"'{path}' has more than one column {repeated}. Rename or remove the others."
            )
    if frame.empty:
        raise DataError(f"'{path}' has a header, but no row. Check the file.")
    return frame


def read_training_table(
    path: str, *, on_missing_outcome: Literal["error", "drop"] = "error", **roles: Any
) -> Table:
    """A file whose columns get their roles from the options of ``ehrmeta fit``."""
    frame, schema = read_with_roles(path, **roles)
    return Table.from_frame(frame, schema, on_missing_outcome=on_missing_outcome)


def read_with_roles(
    path: str,
    *,
    task: str,
    target: str,
    time: str | None = None,
    time_unit: str = "d",
    features: Sequence[str] = (),
    measured: Sequence[str] = (),
    units: Sequence[tuple[str, str]] = (),
    ranges: Sequence[tuple[str, str]] = (),
    task_kind: TaskKind = "patient",
    on_duplicate: OnDuplicate = "error",
) -> tuple[pd.DataFrame, Schema]:
    """A file as it is, and the schema that the options of ``ehrmeta fit`` give it.

    Parameters
    ----------
    features : sequence of str
        By default all columns without another role.
    units, ranges : sequence of (column, text)
        A UCUM unit; a plausible range ``LOW:HIGH``, where either end may be empty.
    """
    frame = read_rows(path, text=(task,))
    if features:
        others = [name for name in (task, target, time) if name is not None]
        require_columns(frame, (*others, *features))
        frame = frame[list(dict.fromkeys((*others, *features)))]
    schema = Schema.infer(
        frame,
        task=task,
        outcome=target,
        time=None if time is None else Clock(time, time_unit),
        task_kind=task_kind,
        on_duplicate=on_duplicate,
        measured=measured,
        units=dict(units),
    )
    for column, text in ranges:
        schema = _with_range(schema, column, text)
    return frame, schema


def read_table(path: str, schema: Schema) -> Table:
    """A bundled table, or a file under a fitted model's schema; rows without an outcome go."""
    if is_bundled(path):
        table = load_dataset(path)
        _check_same_columns(path, table.schema, schema)
        return table
    frame = read_rows(path, text=text_columns(schema))
    return Table.from_frame(frame, schema, on_missing_outcome="drop")


def read_support(path: str, schema: Schema) -> Table:
    """The rows seen so far of some tasks."""
    frame = read_rows(path, text=text_columns(schema))
    return Table.from_frame(frame, schema, on_constant_outcome="allow")


def schema_of(model: MetaRegressor, path: str) -> Schema:
    """The columns a model was fitted on; treatment and outcome time play no part in predicting."""
    if model.schema_ is None or model.schema_.task is None or model.schema_.outcome is None:
        raise SchemaError(
            f"the model in '{path}' does not know its columns by name. Fit it from the command "
            "line, or in Python on the X of a Table."
        )
    return dataclasses.replace(model.schema_, treatment=None, outcome_time=None)


def features_of(frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """The features of rows to predict; what is known only once measured may be absent."""
    require_columns(frame, tuple(f.name for f in schema.features if f.role != "measured"))
    return frame.reindex(columns=list(schema.names))


def times_of(frame: pd.DataFrame, clock: Clock | None) -> Any:
    """The times of rows to predict, as numbers on the clock of the model, (row,)."""
    if clock is None:
        return None
    return to_time(frame[clock.name], unit=clock.unit, origin=clock.origin, name=clock.name)


def groups_of(ids: pd.Series, patients: Adapted) -> Any:
    """Task ids in the type of the adapted ones: a CSV holds text, (row,).

    Numbers are compared digit by digit, never as floats; one that no adapted task has becomes a
    number that none has.
    """
    labels = patients.labels_
    if labels is None or labels.dtype == object:
        return ids.astype("str").where(ids.notna(), None)
    if labels.dtype.kind == "M":
        return pd.to_datetime(ids, errors="coerce")
    codes, texts = pd.factorize(ids.astype("str").where(ids.notna(), None))
    numbers = [_number(text) for text in texts]
    bad = (codes < 0) | np.isin(codes, [i for i, n in enumerate(numbers) if n is None])
    if bad.any():
        raise DataError(
            f"column '{ids.name}' is missing or text in {int(bad.sum()):,} of "
            f"{len(ids):,} rows, but the adapted tasks are numbered. Correct those rows."
        )
    known = {_number(str(label)): label for label in labels.tolist()}
    unused = next(n for n in range(len(known) + 1) if Decimal(n) not in known)
    dtype = np.int64 if labels.dtype.kind in "ib" else labels.dtype
    return np.array([known.get(number, unused) for number in numbers], dtype)[codes]


def joining_ids(ids: Any, name: str, patients: Adapted) -> Any:
    """Task ids of rows that join adapted tasks: whole numbers where those are, (row,)."""
    labels = patients.labels_
    if labels is None or labels.dtype.kind not in "iu":
        return ids if labels is None or labels.dtype.kind != "O" else pd.Series(ids).astype("str")
    codes, texts = pd.factorize(pd.Series(ids).astype("str"))
    numbers = [_number(text) for text in texts]
    wrong = [i for i, n in enumerate(numbers) if n is None or n != n.to_integral_value()]
    if wrong:
        raise DataError(
            f"column '{name}' holds no whole number in {int(np.isin(codes, wrong).sum()):,} of "
            f"{len(codes):,} rows of --support, but the adapted tasks are numbered. Correct those "
            "rows."
        )
    return np.array([int(n) for n in numbers if n is not None], labels.dtype)[codes]


def mark_held_out(path: str, share: float, n_tasks: int) -> None:
    """Note in a model file which share of how many tasks its training left out."""
    tensors, metadata = read_bundle(path)
    write_bundle(path, tensors, metadata | {"held_out": {"share": share, "n_tasks": n_tasks}})


def check_held_out(path: str, share: float, n_tasks: int) -> None:
    """Refuse to hold out other tasks than the training of this model did."""
    found = read_bundle(path)[1].get("held_out")
    if found is None:
        raise DataError(
            f"--hold-out {share:g}: '{path}' was fitted without --hold-out, so the held-out "
            f"patients were in its training. Fit again with --hold-out {share:g}, or evaluate on a "
            "table of other patients."
        )
    if found["share"] != share or found["n_tasks"] != n_tasks:
        raise DataError(
            f"--hold-out {share:g} of {n_tasks:,} tasks: '{path}' was fitted with --hold-out "
            f"{found['share']:g} of {found['n_tasks']:,}, so others are held out here. Pass the "
            f"table of `fit` and --hold-out {found['share']:g}."
        )


def text_columns(schema: Schema) -> tuple[str, ...]:
    """The columns that a CSV must not turn into numbers: the task and the categories."""
    categories = (f.name for f in schema.features if f.kind == "categorical")
    return (*(() if schema.task is None else (schema.task,)), *categories)


def _check_same_columns(path: str, found: Schema, schema: Schema) -> None:
    """Refuse a bundled table whose outcome, time or features are not those of the model."""

    def parts(of: Schema) -> dict[str, Any]:
        return {
            "outcome": of.outcome and (of.outcome.name, of.outcome.unit),
            "time": of.time and (of.time.name, of.time.unit),
            "features": tuple(sorted(of.names)),
        }

    for part, theirs in parts(found).items():
        ours = parts(schema)[part]
        if theirs != ours:
            raise SchemaError(
                f"the {part} of the bundled data set {path} is {theirs}, that of the model {ours}. "
                "Pass a table with the columns that the model was fitted on."
            )


def _number(text: str) -> Decimal | None:
    """Exactly the number that a text writes, if any."""
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _with_range(schema: Schema, column: str, text: str) -> Schema:
    """The schema with one more plausible range."""
    low, sign, high = text.partition(":")
    try:
        limits = [float(end) if end else None for end in (low, high)]
    except ValueError:
        sign = ""
    if not sign:
        raise SchemaError(f"range {column}={text}: write COLUMN=LOW:HIGH, such as hdl=5:200.")
    outcome = schema.outcome
    if outcome is not None and column == outcome.name:
        outcome = dataclasses.replace(outcome, low=limits[0], high=limits[1])
        return dataclasses.replace(schema, outcome=outcome)
    require_columns(dict.fromkeys(schema.names), (column,))
    return dataclasses.replace(
        schema,
        features=tuple(
            dataclasses.replace(f, low=limits[0], high=limits[1]) if f.name == column else f
            for f in schema.features
        ),
    )


def in_command_words(message: object) -> str:
    """An error, a warning or a part of one in a line, its remedies as options and files."""
    if isinstance(message, BaseException):
        text = " ".join(map(in_command_words, message.args))
    elif isinstance(message, Remedy):
        text = COMMAND_WORDS[message.kind].format(**message.values)
    else:
        text = str(reworded(message) if isinstance(message, Finding) else message)
    return " ".join(text.split())


def reworded(finding: Finding) -> Finding:
    """A finding whose remedy is in the words of the command line."""
    return dataclasses.replace(finding, remedy=in_command_words(finding.remedy))


def writable(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """A file that can be written later: nobody wants to learn otherwise after the training."""
    folder = Path(value).absolute().parent
    if not folder.is_dir():
        raise click.BadParameter(f"there is no folder '{folder}'.")
    if Path(value).is_dir() or not os.access(folder, os.W_OK):
        raise click.BadParameter(f"'{value}' cannot be written.")
    is_table = Path(value).suffix.lower() in TABLES
    if ctx.info_name == "predict" and not is_table:
        raise click.BadParameter(f"'{value}': name a .csv or .parquet file.")
    if ctx.info_name != "predict" and is_table:
        raise click.BadParameter(f"'{value}' is named like a table: name a file such as x.ehrmeta.")
    return value


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """``A,B`` as a tuple; nothing as an empty one."""
    return tuple(name.strip() for name in value.split(",")) if value else ()


def numbers(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    """``1,3,5`` as a tuple."""
    try:
        numbers = tuple(int(number) for number in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no list of whole numbers like 1,3,5.") from error
    if len(set(numbers)) < len(numbers):
        raise click.BadParameter(f"{value!r} repeats a number: name each once, like 1,3,5.")
    return numbers


def _pairs(
    ctx: click.Context, param: click.Parameter, value: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """Every ``COLUMN=VALUE`` split at its last equals sign."""
    for one in value:
        if "=" not in one:
            raise click.BadParameter(f"{one!r} is not of the form COLUMN=VALUE.")
    return tuple((one.rpartition("=")[0], one.rpartition("=")[2]) for one in value)


_TABLE_OPTIONS = (
    click.option("--task", metavar="COL", help="Column of the patient (or hospital) of each row."),
    click.option("--target", metavar="COL", help="Column to predict."),
    click.option("--time", metavar="COL", help="Column of numbers or ISO dates."),
    click.option(
        "--time-unit",
        type=click.Choice(list(SECONDS)),
        default="d",
        show_default=True,
        help="UCUM unit of time; dates are counted in it.",
    ),
    click.option(
        "--features",
        metavar="A,B",
        callback=_names,
        help="Columns to predict from; by default all others.",
    ),
    click.option(
        "--measured",
        metavar="A,B",
        callback=_names,
        help="Features known only once measured, such as labs.",
    ),
    click.option(
        "--unit",
        "units",
        metavar="COL=UNIT",
        multiple=True,
        callback=_pairs,
        help="UCUM unit: hdl=mg/dL. May be repeated.",
    ),
    click.option(
        "--range",
        "ranges",
        metavar="COL=LOW:HIGH",
        multiple=True,
        callback=_pairs,
        help="Plausible range: hdl=5:200. May be repeated.",
    ),
    click.option(
        "--task-kind",
        type=click.Choice(get_args(TaskKind)),
        default="patient",
        show_default=True,
        help="In cohorts several rows may share a time.",
    ),
    click.option(
        "--on-duplicate",
        type=click.Choice(get_args(OnDuplicate)),
        default="error",
        show_default=True,
        help="What to do with a repeated (patient, time).",
    ),
    click.option("--drop-missing-target", is_flag=True, help="Leave out rows without a target."),
)


def table_options(command: Command) -> Command:
    """Give a command the options that name the columns of its table."""
    for option in reversed(_TABLE_OPTIONS):
        command = option(command)
    return command


def read_visits(
    table: str,
    *,
    task: str | None,
    target: str | None,
    drop_missing_target: bool = False,
    **roles: Any,
) -> Table:
    """The table of a command with `table_options`: a file, or a bundled data set by its name."""
    if is_bundled(table):
        ctx = click.get_current_context()
        given = [
            param.opts[0]
            for param in ctx.command.params
            if param.name in ROLES
            and ctx.get_parameter_source(param.name) != ParameterSource.DEFAULT
        ]
        if given:
            raise click.UsageError(
                f"{table} is a bundled data set, whose card names its columns: leave out "
                f"{', '.join(given)}."
            )
        return load_dataset(table)
    if task is None or target is None:
        raise click.UsageError("pass --task and --target: the columns of TABLE with these roles.")
    return read_training_table(
        table,
        task=task,
        target=target,
        on_missing_outcome="drop" if drop_missing_target else "error",
        **roles,
    )
