"""Command line of the package: the group ``ehrmeta`` and its commands."""

import click

from ehrmeta.cli import work
from ehrmeta.cli.inspect import check, inspect
from ehrmeta.cli.models import adapt, evaluate, fit, predict
from ehrmeta.cli.options import Command
from ehrmeta.cli.report import report
from ehrmeta.cli.tune import tune

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}


@click.group(context_settings=CONTEXT)
@click.version_option(package_name="ehrmeta")
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    help="CPU threads. With more than one, set GOMP_SPINCOUNT=1000 in the environment, so that "
    "waiting threads do not block other processes.",
)
def main(**_: int) -> None:
    """Learn from many patients, then adapt to a new one from a few values.

    Tables are .csv or .parquet files with a row per visit. Typical use:

    \b
        ehrmeta fit visits.csv --task patient --time day --target hdl --out hdl.ehrmeta
        ehrmeta adapt hdl.ehrmeta new_visits.csv --out patients.ehrmeta
        ehrmeta predict patients.ehrmeta next_visits.csv --out predictions.csv
    """


@main.command(cls=Command)
@click.option("--quick", is_flag=True, help="Few patients and steps, to check that it works.")
@click.option("--out", default="demo", help="Folder for picture and model.")
def demo(quick: bool, out: str) -> None:
    """Train on ten thousand real patients, adapt to new ones, compare with baselines.

    \b
    Example:
        ehrmeta demo
    """
    work.run_demo(out, click.echo, quick=quick)


@main.command(cls=Command)
def datasets() -> None:
    """List the bundled data sets.

    \b
    Example:
        ehrmeta datasets
    """
    work.list_data_sets()


for command in (fit, adapt, predict, evaluate, check, inspect, report, tune):
    main.add_command(command)
