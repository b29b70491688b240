"""Suites as commands: a suite registers its function under the options that it takes."""

import inspect
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from benchmarks.suite.cells import Run
from benchmarks.suite.record import Record, write_records

Option = Callable[[Any], Any]
Suite = TypeVar("Suite", bound=Callable[..., list[Record]])

SUITES: dict[str, click.Command] = {}


def _in_a_folder(context: click.Context, option: click.Parameter, path: str | None) -> str | None:
    """Refuse before measuring what could not be written after it."""
    if path is not None and not Path(path).absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder '{Path(path).parent}'.", context, option)
    return path


QUICK = click.option("--quick", is_flag=True, help="Small cases: does it work here?")
JSON = click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True),
    callback=_in_a_folder,
    help="Write every number here.",
)
CACHE = click.option(
    "--cache",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Keep finished parts here, and go on from them.",
)
SEED = click.option("--seed", type=int, default=0, show_default=True)
WORKERS = click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes; more than one compute on one thread each.",
)


def only(flag: str, name: str, choices: Iterable[str], what: str) -> Option:
    """An option that leaves out what it does not name.

    Parameters
    ----------
    flag, name : str
        ``--method``, and the suite's argument that takes the tuple of all that were given.
    choices : iterable of str
    what : str
        What one of them is, for the help.
    """
    words = f"Only this {what}; may be repeated."
    return click.option(flag, name, type=click.Choice(list(choices)), multiple=True, help=words)


def suite(*options: Option) -> Callable[[Suite], Suite]:
    """Register a suite under the name of its function, which returns the records.

    The function takes a `Run` and what the options give; its docstring is the help. Every suite has
    ``--quick`` and ``--json``.

    Parameters
    ----------
    options : decorators
        `CACHE`, `SEED`, `WORKERS` where the suite uses them, and its own.
    """

    def register(measure: Suite) -> Suite:
        def command(
            quick: bool,
            json_file: str | None,
            cache: Path | None = None,
            seed: int = 0,
            workers: int = 1,
            **chosen: Any,
        ) -> None:
            records = measure(Run(quick, cache, workers, seed, click.echo), **chosen)
            if json_file is not None:
                write_records(json_file, records, command_line(click.get_current_context()))
                click.echo(f"\nsaved {json_file}")
            if any(record.value for record in records if record.metric == "failures"):
                raise SystemExit(1)

        for option in reversed((QUICK, JSON, *options)):
            command = option(command)
        name = measure.__name__
        SUITES[name] = click.command(name, help=inspect.getdoc(measure))(command)
        return measure

    return register


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
