"""Reading tables on the command line, and the remedies of messages as options."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import pandas as pd
from click.core import ParameterSource

from ehrmeta.cli.options import ends
from ehrmeta.data import Clock, Finding, Schema, Table
from ehrmeta.data.catalog import list_datasets, load_dataset, load_frame
from ehrmeta.data.table_file import read_frame
from ehrmeta.errors import DataError, Remedy, SchemaError

if TYPE_CHECKING:
    from ehrmeta.estimators import TaskModel

ROLES = (
    *("task", "target", "time", "time_unit", "features", "measured", "units", "ranges"),
    *("task_kind", "on_duplicate", "drop_missing_target"),
)


def is_bundled(source: str) -> bool:
    """Whether a name is a bundled data set; an existing file of that name has priority."""
    return source in list_datasets() and not Path(source).exists()


def read_table(
    source: str,
    schema: Schema | None = None,
    *,
    drop_missing_target: bool = False,
    on_constant_outcome: Literal["error", "allow"] = "error",
    **roles: Any,
) -> Table:
    """The checked table of a file or a bundled data set.

    `schema` is that of the model that will read the table; otherwise `roles`, the values of
    `table_options`, name the columns.
    """
    if is_bundled(source):
        table = load_dataset(source)
        _check_bundled(source, table.schema, schema)
        return table
    frame, schema = read_rows(source, schema, **roles)
    return Table.from_frame(
        frame,
        schema,
        on_missing_outcome="drop" if drop_missing_target else "error",
        on_constant_outcome=on_constant_outcome,
    )


def read_rows(
    source: str, schema: Schema | None = None, **roles: Any
) -> tuple[pd.DataFrame, Schema]:
    """The unchecked rows of a file or a bundled data set, and their schema; see `read_table`."""
    if is_bundled(source):
        return load_frame(source), _check_bundled(source, load_dataset(source).schema, schema)
    if schema is not None:
        return _read_file(source, text_columns(schema)), schema
    if roles["task"] is None or roles["target"] is None:
        raise click.UsageError("pass --task and --target: the columns of TABLE with these roles.")
    frame = _read_file(source, (roles["task"],))
    return frame, Schema.infer(frame, **roles_of(roles))


def roles_of(options: dict[str, Any]) -> dict[str, Any]:
    """Values of `table_options` as keywords of `Schema.infer`."""
    time = options["time"]
    return {name: options[name] for name in ("task", "task_kind", "on_duplicate")} | {
        "outcome": options["target"],
        "time": None if time is None else Clock(time, options["time_unit"]),
        "features": tuple(options["features"]),
        "measured": tuple(options["measured"]),
        "units": dict(options["units"]),
        "ranges": {column: ends(text) for column, text in options["ranges"]},
    }


def text_columns(schema: Schema) -> tuple[str, ...]:
    """Columns to read from a CSV as text: the task and the categories."""
    categories = (f.name for f in schema.features if f.kind == "categorical")
    return (*(() if schema.task is None else (schema.task,)), *categories)


def schema_of(model: TaskModel, path: str) -> Schema:
    """Schema that a model was fitted on, without treatment and outcome time."""
    if model.schema is None or model.schema.task is None or model.schema.outcome is None:
        raise SchemaError(
            f"the model in '{path}' does not know its columns by name. Fit it on the command line, "
            "or in Python on the X of a Table."
        )
    return dataclasses.replace(model.schema, treatment=None, outcome_time=None)


def _read_file(path: str, text: tuple[str, ...]) -> pd.DataFrame:
    """Read a file with `read_frame`; raises an error for repeated column names or no rows.

    pandas renames a second column ``hdl`` to ``hdl.1``: a copy of the outcome would predict it.
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
        raise DataError(f"'{path}' has a header, but no rows. Check the file.")
    return frame


def _check_bundled(source: str, card: Schema, schema: Schema | None) -> Schema:
    """Schema for reading a bundled data set; a model's schema must match its card."""
    if schema is None:
        context = click.get_current_context()
        given = [
            param.opts[0]
            for param in context.command.params
            if param.name in ROLES
            and context.get_parameter_source(param.name) != ParameterSource.DEFAULT
        ]
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
    columns = (schema.outcome, schema.time)
    named = [None if column is None else (column.name, column.unit) for column in columns]
    return (*named, tuple(sorted(schema.names)))


# Remedies on the command line, by kind.
COMMAND_WORDS = {
    "ask-for-classes": "Pass a regression model: class probabilities are not supported here.",
    "convert-units": "{likely}convert them, or correct --unit.",
    "drop-missing": "Fill them in or drop those rows, as `fit` does with --drop-missing-target.",
    "fewer-shots": "Lower the numbers of --shots.",
    "fit-with-time": "Fit it with --time.",
    "give-range": "Write one, such as {name}=1:10.",
    "keep-small-tasks": "",
    "name-time": "Pass --time, or remove them from --measured.",
    "new-groups": "Adapt them first, or pass --new-groups population or nan.",
    "numbers-at-fit": "Convert it to numbers, as at `fit`.",
    "numbers-or-text": "Write all of its cells as numbers, or all as text.",
    "one-row-per-time": "Drop them, or `fit` with --on-duplicate first, last, mean or allow.",
    "one-row-per-visit": "If tasks are patients, `fit` with --on-duplicate first, last or mean; if "
    "they are cohorts, with --task-kind cohort.",
    "one-time-zone": "Convert all rows to one zone.",
    "other-repeats": "`fit` with another --on-duplicate if another is meant.",
    "other-study": "Pass another --study, or the same table and options as before.",
    "pass-a-model": "Pass a file from `fit`.",
    "robust-likelihood": "Look for gross errors in the target, or pass --likelihood student_t.",
    "several-tasks": "Pass as --task the column that identifies patients.",
    "smaller-chunks": "",
    "smaller-steps": "Pass --likelihood student_t if the target holds gross errors.",
    "write-dates": "Write them as YYYY-MM-DD.",
    "write-range": "Write LOW:HIGH, LOW:HIGH:log or A,B,C.",
}


def in_command_words(message: object) -> str:
    """Text of an error, a warning or a part of one on one line, with command-line remedies."""
    if isinstance(message, BaseException):
        text = " ".join(map(in_command_words, message.args))
    elif isinstance(message, Remedy):
        text = COMMAND_WORDS[message.kind].format(**message.values)
    else:
        text = str(reworded(message) if isinstance(message, Finding) else message)
    return " ".join(text.split())


def reworded(finding: Finding) -> Finding:
    """A finding with its remedy for the command line."""
    return dataclasses.replace(finding, remedy=in_command_words(finding.remedy))


def printable(text: str) -> str:
    """Escape control characters, with which a file could control the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
