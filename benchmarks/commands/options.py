"""Options that suites share, and the file of numbers that they write."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from benchmarks.suite.record import Record, write_records

__all__ = [
    "cache_option",
    "command_line",
    "json_option",
    "only",
    "quick_option",
    "seed_option",
    "suite_options",
    "workers_option",
    "write",
]

Command = TypeVar("Command", bound=Callable[..., Any])


def _in_a_folder(context: click.Context, option: click.Parameter, path: str | None) -> str | None:
    """Refuse before measuring what could not be written after it."""
    if path is not None and not Path(path).absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder '{Path(path).parent}'.", context, option)
    return path


quick_option = click.option("--quick", is_flag=True, help="Small cases: does it work here?")
json_option = click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True),
    callback=_in_a_folder,
    help="Write every number here.",
)
cache_option = click.option(
    "--cache",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Keep finished parts here, and go on from them.",
)
seed_option = click.option("--seed", type=int, default=0, show_default=True)
workers_option = click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes; more than one compute on one thread each.",
)


def suite_options(command: Command) -> Command:
    """``--quick``, ``--json`` and ``--cache``, which all suites of several parts have."""
    for option in (cache_option, json_option, quick_option):
        command = option(command)
    return command


def only(flag: str, name: str, choices: Iterable[str], what: str) -> Callable[[Command], Command]:
    """An option that leaves out what it does not name.

    Parameters
    ----------
    flag, name : str
        ``--method``, and the command's argument that takes the tuple of all that were given.
    choices : iterable of str
    what : str
        What one of them is, for the help.
    """
    return click.option(
        flag,
        name,
        type=click.Choice(list(choices)),
        multiple=True,
        help=f"Only this {what}; may be repeated.",
    )


def command_line(context: click.Context) -> str:
    """The command as it was given, without names of folders and files."""
    words = ["python", "-m", "benchmarks", str(context.info_name)]
    for option in context.command.params:
        given = context.get_parameter_source(str(option.name)) == ParameterSource.COMMANDLINE
        if not given or option.name == "json_file":
            continue
        value = context.params[str(option.name)]
        if isinstance(option.type, click.Path):
            value = option.metavar
        for one in value if isinstance(value, tuple) else [value]:
            words += [option.opts[0]] if one is True else [option.opts[0], str(one)]
    return shlex.join(words)


def write(json_file: str | None, records: Iterable[Record]) -> None:
    """Write what the running command has measured, if a file was named."""
    if json_file is not None:
        write_records(json_file, records, command_line(click.get_current_context()))
        click.echo(f"\nsaved {json_file}")
