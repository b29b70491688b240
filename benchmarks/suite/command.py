"""Command line of the benchmarks: suites register their functions as commands."""

import inspect
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from benchmarks.suite.cells import Run
from benchmarks.suite.record import Record, write_records
from ehrmeta.cli.options import Command

Option = Callable[[Any], Any]
Suite = TypeVar("Suite", bound=Callable[..., list[Record]])

SUITES: dict[str, click.Command] = {}


def _in_a_folder(context: click.Context, option: click.Parameter, path: str | None) -> str | None:
    """Raise an error before the run if the file could not be written."""
    if path is not None and not Path(path).absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder '{Path(path).parent}'.", context, option)
    return path


QUICK = click.option("--quick", is_flag=True, help="Small cases, to check that it works.")
JSON = click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True),
    callback=_in_a_folder,
    help="Write all records here.",
)
CACHE = click.option(
    "--cache",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Store finished parts here, and resume from them.",
)
SEED = click.option("--seed", type=int, default=0, show_default=True)
WORKERS = click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Number of processes; several use one thread each.",
)


def only(flag: str, name: str, choices: Iterable[str], noun: str) -> Option:
    """Repeatable option such as ``--method`` that restricts a suite's argument to some choices."""
    text = f"Only this {noun}; may be repeated."
    return click.option(flag, name, type=click.Choice(list(choices)), multiple=True, help=text)


def suite(*options: Option) -> Callable[[Suite], Suite]:
    """Register a suite under the name of its function, which returns the records.

    The function takes a `Run` and the values of its options; its docstring is the help. Every suite
    has ``--quick`` and ``--json``; `CACHE`, `SEED` and `WORKERS` are set in the `Run`.
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
        SUITES[name] = click.command(name, cls=Command, help=inspect.getdoc(measure))(command)
        return measure

    return register


def command_line(context: click.Context) -> str:
    """The command as entered, without names of folders and files."""
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
