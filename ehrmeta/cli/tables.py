"""Reading tables on the command line, options shared by commands, and remedies as options."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, Literal, get_args

import click
import pandas as pd
from click.core import ParameterSource

from ehrmeta.data import Clock, Finding, Schema, Table
from ehrmeta.data.catalog import list_datasets, load_dataset, load_frame
from ehrmeta.data.clock import SECONDS
from ehrmeta.data.schema import OnDuplicate, TaskKind, Transform
from ehrmeta.data.table_file import read_frame
from ehrmeta.errors import DataError, Remedy, SchemaError
from ehrmeta.nn.likelihoods import LIKELIHOODS

Option = Callable[[Any], Any]  # a decorator of commands
ROLES = (
    *("task", "target", "time", "time_unit", "features", "measured", "units", "ranges"),
    *("task_kind", "on_duplicate", "drop_missing_target"),
)
SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)
TABLES = (".csv", ".parquet")


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
        "ranges": {column: _ends(text) for column, text in options["ranges"]},
    }


def text_columns(schema: Schema) -> tuple[str, ...]:
    """Columns to read from a CSV as text: the task and the categories."""
    categories = (f.name for f in schema.features if f.kind == "categorical")
    return (*(() if schema.task is None else (schema.task,)), *categories)


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
                f"the {part} of the bundled data set {source} is {expected}, that of the model "
                f"{given_part}. Pass a table with the columns that the model was fitted on."
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


def writable(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Check before the work starts that a file can be written."""
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


def numbers(_ctx: object, _param: object, value: str) -> tuple[int, ...]:
    """Parse ``1,3,5`` into a tuple."""
    try:
        values = tuple(int(number) for number in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a list of whole numbers, as 1,3,5.") from error
    if min(values) < 0 or len(set(values)) < len(values):
        raise click.BadParameter(
            f"{value!r} repeats a number or has one below 0: write a list, as 1,3,5."
        )
    return values


def _names(_ctx: object, _param: object, value: str | None) -> tuple[str, ...]:
    """Parse ``A,B`` into a tuple, empty without a value."""
    return tuple(name.strip() for name in value.split(",")) if value else ()


def _pairs(_ctx: object, _param: object, value: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Split every ``COLUMN=VALUE`` at its last equals sign."""
    for one in value:
        if "=" not in one:
            raise click.BadParameter(f"{one!r} is not of the form COLUMN=VALUE.")
    return tuple((one.rpartition("=")[0], one.rpartition("=")[2]) for one in value)


def _ranges(_ctx: object, _param: object, value: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Check every ``COLUMN=LOW:HIGH``; either end may be empty."""
    pairs = _pairs(_ctx, _param, value)
    for column, text in pairs:
        try:
            _ends(text)
        except ValueError as error:
            raise click.BadParameter(
                f"'{column}={text}': write COLUMN=LOW:HIGH, such as hdl=5:200."
            ) from error
    return pairs


def _ends(text: str) -> tuple[float | None, float | None]:
    """Parse ``LOW:HIGH`` into numbers, None for an empty end."""
    low, high = text.split(":")
    return float(low) if low else None, float(high) if high else None


def _all_of(*options: Option) -> Option:
    """One decorator for several options, in the order of the help."""
    return lambda command: reduce(lambda inner, option: option(inner), reversed(options), command)


def _choice(name: str, values: Iterable[str], text: str, default: str | None = None) -> Option:
    """Option for one of several values, the first by default."""
    choice = click.Choice(list(values))
    return click.option(f"--{name}", type=choice, default=default or choice.choices[0], help=text)


def _columns(name: str, text: str) -> Option:
    return click.option(name, metavar="A,B", callback=_names, help=text)


def _by_column(name: str, metavar: str, callback: Callable[..., Any], text: str) -> Option:
    text = f"{text} May be repeated."
    return click.option(
        f"--{name}", f"{name}s", metavar=metavar, multiple=True, callback=callback, help=text
    )


def shots_option(default: str, text: str) -> Option:
    """Option for several k, separated by commas."""
    return click.option("--shots", metavar="N,N", callback=numbers, default=default, help=text)


# Options that name the columns of a table.
table_options = _all_of(
    click.option("--task", metavar="COL", help="Column of the patient (or hospital) of each row."),
    click.option("--target", metavar="COL", help="Column to predict."),
    click.option("--time", metavar="COL", help="Column of numbers or ISO dates."),
    _choice("time-unit", SECONDS, "UCUM unit of time; dates are counted in it.", default="d"),
    _columns("--features", "Columns to predict from; by default all others."),
    _columns("--measured", "Features known only once measured, such as labs."),
    _by_column("unit", "COL=UNIT", _pairs, "UCUM unit: hdl=mg/dL."),
    _by_column("range", "COL=LOW:HIGH", _ranges, "Plausible range: hdl=5:200."),
    _choice("task-kind", get_args(TaskKind), "In cohorts several rows may share a time."),
    _choice("on-duplicate", get_args(OnDuplicate), "How to handle a repeated (patient, time)."),
    click.option("--drop-missing-target", is_flag=True, help="Drop rows without a target."),
)


# Options of the model to train.
training_options = _all_of(
    click.option(
        "--transform", type=click.Choice(get_args(Transform)), help="Learn on this scale."
    ),
    click.option("--likelihood", type=click.Choice(list(LIKELIHOODS))),
    click.option("--max-steps", type=click.IntRange(1), help="Training steps of a fit at most."),
    click.option("--seed", type=int, default=0),
)


def scoring_options(shots: str) -> Option:
    """Options for the test patients and the baselines."""
    return _all_of(
        shots_option(shots, "Numbers k of values of each patient to adapt to."),
        click.option("--train", metavar="TABLE", help="Table to fit baselines on."),
        click.option(
            "--hold-out",
            type=SHARE,
            help="Test on the patients held out by `fit --hold-out`; fit baselines on the others.",
        ),
    )
