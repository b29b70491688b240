"""Command line of the package: the group ``ehrmeta`` and its commands."""

import warnings
from typing import Any

import click
import torch

from ehrmeta.cli.demo import run_demo
from ehrmeta.cli.inspect import check, inspect
from ehrmeta.cli.models import adapt, evaluate, fit, predict
from ehrmeta.cli.report import report
from ehrmeta.cli.tables import in_command_words
from ehrmeta.cli.tune import tune
from ehrmeta.data import list_datasets, read_card
from ehrmeta.errors import DataWarning, EhrmetaError


class Commands(click.Group):
    """A group of commands that print each error and each warning in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        with warnings.catch_warnings():
            warnings.simplefilter("always", DataWarning)
            warnings.showwarning = _show_warning
            try:
                return super().invoke(ctx)
            except EhrmetaError as error:
                raise click.ClickException(in_command_words(error)) from error
            except BrokenPipeError:
                raise
            except OSError as error:
                reason = error.strerror or str(error)
                where = f"cannot use '{error.filename}': " if error.filename else ""
                raise click.ClickException(f"{where}{reason}. Pass another path.") from error


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"Warning: {in_command_words(message)}", err=True)


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}


@click.group(cls=Commands, context_settings=CONTEXT)
@click.version_option(package_name="ehrmeta")
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    help="CPU threads. With more than one, set GOMP_SPINCOUNT=1000 in the environment, so that "
    "waiting threads do not block other processes.",
)
def main(threads: int) -> None:
    """Learn from many patients, then adapt to a new one from a few values.

    Tables are .csv or .parquet files with a row per visit. Typical use:

    \b
        ehrmeta fit visits.csv --task patient --time day --target hdl --out hdl.ehrmeta
        ehrmeta adapt hdl.ehrmeta new_visits.csv --out patients.ehrmeta
        ehrmeta predict patients.ehrmeta next_visits.csv --out predictions.csv
    """
    torch.set_num_threads(threads)


@main.command()
@click.option("--quick", is_flag=True, help="Few patients and steps, to check that it works.")
@click.option("--out", default="demo", help="Folder for picture and model.")
def demo(quick: bool, out: str) -> None:
    """Train on ten thousand real patients, adapt to new ones, compare with baselines.

    \b
    Example:
        ehrmeta demo
    """
    run_demo(out, click.echo, quick=quick)


@main.command()
def datasets() -> None:
    """List the bundled data sets.

    \b
    Example:
        ehrmeta datasets
    """
    lines = [("name", "rows", "tasks", "licence", "what")]
    for name in list_datasets():
        card = read_card(name)
        counts = (f"{card['loaded'][n]:,}" for n in ("n_rows", "n_tasks"))
        lines.append((name, *counts, card["licence"], card["title"]))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, rows, tasks, licence, title in lines:
        size = f"{rows:>{widths[1]}}  {tasks:>{widths[2]}}"
        click.echo(f"{name:<{widths[0]}}  {size}  {licence:<{widths[3]}}  {title}")


for command in (fit, adapt, predict, evaluate, check, inspect, report, tune):
    main.add_command(command)
