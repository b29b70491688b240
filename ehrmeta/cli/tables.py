"""Reading tables on the command line: columns by options, classes of a target, lines of a file."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import click
import numpy as np
import pandas as pd
from click.core import ParameterSource
from numpy.typing import NDArray

from ehrmeta.cli.messages import in_command_words, stage
from ehrmeta.cli.options import ends
from ehrmeta.data import Clock, Feature, Outcome, Schema, Table
from ehrmeta.data.catalog import list_datasets, load_dataset, load_frame
from ehrmeta.data.censored import read_limits
from ehrmeta.data.csv_file import CsvForm
from ehrmeta.data.groups import respelled
from ehrmeta.data.table_file import file_suffix, read_frame
from ehrmeta.errors import DataError, DataWarning, EhrmetaError, SchemaError
from ehrmeta.serving.columns import coded, codes_of, schema_of as stored_schema, text_columns

if TYPE_CHECKING:
    from ehrmeta.estimators import TaskModel

FORM = ("sep", "decimal", "encoding")
_MOST = 20  # text values of a target; more are no classes
_ROWS = re.compile(r"\b(rows?) (\d+(?:(?: and |-)\d+)?)\b")
ROLES = (
    *("task", "target", "time", "time_unit", "features", "measured", "known", "units", "ranges"),
    *("task_kind", "on_duplicate", "censored"),
)


def is_bundled(source: str) -> bool:
    """Whether a name is a bundled data set; an existing file of that name has priority."""
    return source in list_datasets() and not Path(source).exists()


@dataclasses.dataclass(frozen=True)
class Rows:
    """The unchecked rows of a file or a bundled data set.

    Attributes
    ----------
    frame : DataFrame, (row, column)
        With the number of its class in every cell of an outcome of classes.
    schema : Schema
    classes : ndarray, (class,), or None
        None if the outcome holds numbers.
    """

    frame: pd.DataFrame
    schema: Schema
    classes: NDArray[Any] | None


Classes: TypeAlias = NDArray[Any] | Literal["detect"] | None


def read_table(
    source: str, schema: Schema | None = None, *, classes: Classes = None, **options: Any
) -> Table:
    """The checked table of a file or a bundled data set; its y holds labels if there are classes.

    `schema` and `classes` are those of the model that will read the table; otherwise `options`, the
    values of `table_options`, name the columns.
    """
    rows = read_rows(source, schema, classes=classes, **options)
    return table_of(rows, source, **options)


def table_of(
    rows: Rows,
    source: str,
    *,
    on_constant_outcome: Literal["error", "allow"] = "error",
    **options: Any,
) -> Table:
    """Check the rows of a source; those without an outcome are left out. See `read_table`."""
    if is_bundled(source):
        table = load_dataset(source)
    else:
        with in_lines(source, **options):
            table = Table.from_frame(
                rows.frame,
                rows.schema,
                on_missing_outcome="drop",
                on_constant_outcome=on_constant_outcome,
            )
    if rows.classes is None:
        return table
    return dataclasses.replace(table, y=labels(table, rows.classes))


def read_rows(
    source: str,
    schema: Schema | None = None,
    *,
    classes: Classes = None,
    schema_file: str | None = None,
    **options: Any,
) -> Rows:
    """The unchecked rows of a file or a bundled data set; see `read_table`."""
    if is_bundled(source):
        frame = load_frame(source)
        schema = _check_bundled(source, load_dataset(source).schema, schema)
        return _with_classes(frame, schema, classes)
    if schema is None and schema_file is not None:
        roles = _given(*ROLES)
        if roles:
            raise click.UsageError(f"--schema names the columns: leave out {', '.join(roles)}.")
        schema = Schema.from_toml(schema_file)
    form = {name: options.get(name) for name in FORM}
    if schema is not None:
        text = text_columns(schema)
        if isinstance(classes, np.ndarray) and classes.dtype == object and schema.outcome:
            text = (*text, schema.outcome.name)
        return _with_classes(_read_file(source, text, form), schema, classes)
    if options["task"] is None or options["target"] is None:
        raise click.UsageError(
            "pass --task and --target: the columns of TABLE with these roles, or --schema."
        )
    frame = _read_file(source, (options["task"],), form)
    with in_lines(source, **form):
        schema = Schema.infer(frame, **roles_of(options))
    return _with_classes(frame, schema, classes)


def _with_classes(frame: pd.DataFrame, schema: Schema, classes: Classes) -> Rows:
    """Rows with a coded outcome; classes that were detected are named."""
    name = schema.outcome.name if schema.outcome else ""
    if name not in frame or classes is None:
        return Rows(frame, schema, None)
    if isinstance(classes, str):
        classes = classes_of(frame[name])
        if classes is None:
            return Rows(frame, schema, None)
        risks = f"risk of {classes[1]} (see --event of `predict`)"
        risks = risks if len(classes) == 2 else "risk of each"
        listed = ", ".join(map(str, classes))
        click.echo(f"column '{name}' holds {len(classes)} classes, {listed}: predicts the {risks}")
        if respelled(classes.astype(str).astype(object)):
            raise DataError(
                f"column '{name}': classes differ in leading zeros, capitals or spaces only. Use "
                "one spelling."
            )
    if schema.on_duplicate == "mean":
        raise DataError(
            f"column '{name}' holds classes, which have no mean. Pass --on-duplicate first or last."
        )
    return Rows(coded(frame, schema, classes), schema, classes)


def classes_of(target: pd.Series) -> NDArray[Any] | None:
    """The classes that a column holds: text values, or 0 and 1; None if it holds numbers.

    Numbers with a few cells of text, such as ``<5``, are no classes.

    Examples
    --------
    >>> classes_of(pd.Series(["yes", None, "no"])).tolist(), classes_of(pd.Series([True, False]))
    (['no', 'yes'], array([0, 1]))
    >>> classes_of(pd.Series([0.0, 1.0, 2.0])), classes_of(pd.Series(["48", "<5", "50"]))
    (None, None)
    """
    present = target.dropna()
    if present.map(lambda cell: isinstance(cell, bool | np.bool_)).all():
        present = present.astype(np.int64)
    if pd.api.types.is_numeric_dtype(present):
        return np.array([0, 1]) if set(present.unique()) == {0, 1} else None
    if pd.api.types.is_datetime64_any_dtype(present):
        return None
    text = present.astype("str")
    if read_limits(text.to_numpy(object)) is not None:
        return None
    if 2 * int(pd.to_numeric(text, errors="coerce").notna().sum()) > len(text):
        return None
    classes = np.sort(text.unique().astype(object))
    return classes if 1 < len(classes) <= _MOST else None


def event_of(classes: NDArray[Any] | None, event: str | None) -> Any:
    """The class of two that `--event` names, None without the option."""
    if event is None:
        return None
    if classes is None or len(classes) != 2:
        raise click.UsageError("--event is for a model of two classes: leave it out.")
    codes = codes_of(classes)
    if event not in codes:
        raise click.UsageError(f"--event {event!r}: pass {' or '.join(map(str, classes))}.")
    return classes[codes[event]]


def labels(table: Table, classes: NDArray[Any]) -> NDArray[Any]:
    """The classes of the rows of a table with a coded outcome, (row,)."""
    return classes[table.y.astype(np.int64)]


def left_out(table: Table) -> None:
    """Print how many rows of a table were dropped without an outcome, or merged."""
    for finding in table.findings:
        if finding.what.startswith(("rows dropped: no outcome", "rows that repeated")):
            click.echo(in_command_words(finding), err=True)


@contextmanager
def in_lines(source: str, rows: Sequence[int] | None = None, **options: Any) -> Iterator[None]:
    """Context in which errors and warnings name lines of a CSV file instead of rows.

    `rows` are those of the frame that a message counts, by default all.
    """
    show = warnings.showwarning

    def show_in_lines(message: Warning | str, *where: Any, **more: Any) -> None:
        if isinstance(message, DataWarning):
            message.args = tuple(with_lines(part, source, rows, **options) for part in message.args)
        show(message, *where, **more)

    with warnings.catch_warnings():
        warnings.showwarning = show_in_lines
        try:
            yield
        except EhrmetaError as error:
            error.args = tuple(with_lines(part, source, rows, **options) for part in error.args)
            raise


def with_lines(
    part: Any,
    source: str,
    rows: Sequence[int] | None = None,
    sep: str | None = None,
    encoding: str | None = None,
    **_: Any,
) -> Any:
    """A part of a message with ``line 5`` instead of ``row 3``, if it is text on a CSV file."""
    is_text = isinstance(part, str) and _ROWS.search(part) is not None
    if not is_text or is_bundled(source):
        return part
    path, lines = Path(source), None
    if file_suffix(path) != ".parquet":
        lines = [begin for begin, _ in CsvForm.detect(path, sep, encoding).rows(path)][1:]

    def place(number: re.Match[str]) -> str:
        row = int(number[0])
        row = row if rows is None or row >= len(rows) else int(rows[row])
        return str(row if lines is None or row >= len(lines) else lines[row])

    def named(match: re.Match[str]) -> str:
        word = match[1] if lines is None else match[1].replace("row", "line")
        return f"{word} {re.sub('[0-9]+', place, match[2])}"

    return _ROWS.sub(named, part)


def roles_of(options: dict[str, Any]) -> dict[str, Any]:
    """Values of `table_options` as keywords of `Schema.infer`."""
    time = options["time"]
    choices = ("task", "task_kind", "on_duplicate", "censored")
    return {name: options[name] for name in choices if name in options} | {
        "outcome": options["target"],
        "time": None if time is None else Clock(time, options["time_unit"]),
        "features": tuple(options["features"]),
        "measured": tuple(options["measured"]),
        "known": tuple(options.get("known") or ()) or None,
        "units": dict(options["units"]),
        "ranges": {column: ends(text) for column, text in options["ranges"]},
    }


def schema_of(model: TaskModel, path: str, schema_file: str | None = None) -> Schema:
    """Schema that a model was fitted on, without treatment and outcome time.

    A schema file with the same columns may change how rows are read: plausible ranges, and how
    repeated rows are resolved.
    """
    stored = stored_schema(model, f"the model in '{path}'")
    if schema_file is None:
        return stored
    given = Schema.from_toml(schema_file)
    features = {feature.name: feature for feature in given.features}
    differing = [
        *([] if given.task == stored.task else ["task"]),
        *([] if _named(given.outcome) == _named(stored.outcome) else ["outcome"]),
        *([] if _named(given.time) == _named(stored.time) else ["time"]),
        *(f.name for f in stored.features if _meaning(f) != _meaning(features.get(f.name))),
    ]
    if differing:
        raise SchemaError(
            f"'{schema_file}' and the model in '{path}' differ in {', '.join(differing)}. Pass the "
            "schema of `fit`, or leave --schema out: the model knows its columns."
        )
    return dataclasses.replace(
        stored,
        features=tuple(features[name] for name in stored.names),
        outcome=given.outcome,
        on_duplicate=given.on_duplicate,
    )


def _named(column: Outcome | Clock | None) -> tuple[str, str] | None:
    """Name and unit of outcome or time."""
    return None if column is None else (column.name, column.unit)


def _meaning(feature: Feature | None) -> tuple[str, ...] | None:
    """Name, kind, role and unit of a feature, to compare schemas."""
    return None if feature is None else (feature.name, feature.kind, feature.role, feature.unit)


def _read_file(path: str, text: tuple[str, ...], form: dict[str, Any]) -> pd.DataFrame:
    """Read a file with `read_frame`; raises an error for no rows."""
    with stage("reading"):
        frame = read_frame(path, text=text, **form)
    filled = np.flatnonzero(frame.notna().any(axis=1))
    frame = frame[: 1 + filled.max(initial=-1)]  # spreadsheets end in rows of separators
    if frame.empty:
        raise DataError(f"'{path}' has a header, but no rows. Check the file.")
    return frame


def _given(*names: str) -> list[str]:
    """Options passed to the running command, out of those in `names`."""
    context = click.get_current_context()
    return [
        param.opts[0]
        for param in context.command.params
        if param.name in names
        and context.get_parameter_source(param.name) != ParameterSource.DEFAULT
    ]


def _check_bundled(source: str, card: Schema, schema: Schema | None) -> Schema:
    """Schema for reading a bundled data set; a model's schema must match its card."""
    if schema is None:
        given = _given(*ROLES, "drop_missing_target", "schema_file", *FORM)
        if given:
            raise click.UsageError(
                f"{source} is a bundled data set, whose card names its columns: omit "
                f"{', '.join(given)}."
            )
        return card
    for part, expected, given_part in zip(
        ("outcome", "time", "features"), _columns_of(card), _columns_of(schema), strict=True
    ):
        if expected != given_part:
            raise SchemaError(
                f"{part} of the bundled data set {source}: {expected}; of the model: {given_part}. "
                f"Pass a table with the columns that the model was fitted on."
            )
    return schema


def _columns_of(schema: Schema) -> tuple[Any, ...]:
    """Name and unit of outcome and time, and names of the features."""
    return _named(schema.outcome), _named(schema.time), tuple(sorted(schema.names))
