"""Command ``ehrmeta report``: a report on a saved forecaster."""

from typing import Any

import click

from ehrmeta.cli import work
from ehrmeta.cli.options import Command, scoring_options


@click.command(cls=Command)
@click.argument("model")
@click.argument("table")
@click.option("--out", required=True, help="File to write: .html, .md or .json.")
@scoring_options("0,1,2,3,5")
@click.option("--answers", metavar="FILE", help='TOML file of checklist answers: 5a = "...".')
@click.option("--examples", type=click.IntRange(0, 20), default=0, help="Draw so many patients.")
@click.option("--title", default="", show_default=False, help="Of the report.")
def report(**options: Any) -> None:
    """Write a report on how well MODEL forecasts the patients of TABLE, overall and in subgroups.

    None of them may have been in training: pass another table, or hold patients out.

    \b
    Examples:
        ehrmeta report hdl.ehrmeta test.csv --train train.csv --out report.html
        ehrmeta report bili.ehrmeta pbcseq --hold-out 0.2 --out report.html
    """
    work.write_report(**options)
