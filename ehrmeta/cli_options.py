"""Options that several commands share: checked values, and a table with the roles of columns."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from click.core import ParameterSource

from ehrmeta.cli_tables import is_bundled, read_training_table
from ehrmeta.data import Table, load_dataset
from ehrmeta.data.clock import SECONDS
from ehrmeta.data.schema import OnDuplicate, TaskKind

__all__ = [
    "ROLES",
    "in_command_words",
    "names",
    "numbers",
    "pairs",
    "read_visits",
    "table_options",
    "writable",
]

Command = TypeVar("Command", bound=Callable[..., Any])

ROLES = (
    *("task", "target", "time", "time_unit", "features", "measured", "units", "ranges"),
    *("task_kind", "on_duplicate", "drop_missing_target"),
)
TABLES = (".csv", ".parquet")
COMMAND_WORDS = {
    "Pass on_missing_outcome='drop' to leave them out.": "Fill it in or drop those rows, as `fit` "
    "does with --drop-missing-target.",
    "pass on_duplicate='first', 'last', 'mean' or 'allow'.": "`fit` with --on-duplicate first, "
    "last, mean or allow.",
    "Change on_duplicate": "Fit with another --on-duplicate",
    "open it with Adapted.load, whose .model is the model.": "pass a file of `fit`.",
    "new_groups='population' or 'nan'": "--new-groups population or nan",
    "Pass another study_name": "Pass another --study",
    "Lower score_shots": "Lower --shots",
    "score_shots must be a tuple": "--shots must be a list",
    "or pass on_missing_outcome='drop' to leave the rows out.": "or pass --drop-missing-target.",
    "n_splits=": "--folds ",
    ", or groups=None.": ".",
    "confidence_level must": "--confidence-level must",
}
"""What a message says of Python, as the command line says it."""


def in_command_words(message: str) -> str:
    """A message with its remedies in the words of the command line."""
    for python, words in COMMAND_WORDS.items():
        message = message.replace(python, words)
    return message


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


def names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
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


def pairs(
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
        callback=names,
        help="Columns to predict from; by default all others.",
    ),
    click.option(
        "--measured",
        metavar="A,B",
        callback=names,
        help="Features known only once measured, such as labs.",
    ),
    click.option(
        "--unit",
        "units",
        metavar="COL=UNIT",
        multiple=True,
        callback=pairs,
        help="UCUM unit: hdl=mg/dL. May be repeated.",
    ),
    click.option(
        "--range",
        "ranges",
        metavar="COL=LOW:HIGH",
        multiple=True,
        callback=pairs,
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
