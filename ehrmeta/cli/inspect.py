"""Commands ``ehrmeta check`` and ``inspect``: problems of a table, contents of a model file."""

from typing import Any

import click

from ehrmeta.cli import work
from ehrmeta.cli.options import Command, table_options


@click.command(cls=Command)
@click.argument("table")
@table_options
@click.option("--write-schema", metavar="FILE", help="Save the guessed roles, to correct them.")
@click.option("--strict", is_flag=True, help="Exit with status 1 on warnings, too.")
def check(**options: Any) -> None:
    """List all problems of TABLE; exit status 1 if it cannot be used.

    \b
    Examples:
        ehrmeta check visits.csv --task patient --time day --target hdl --write-schema visits.toml
        ehrmeta check visits.csv --schema visits.toml
    """
    work.check_file(**options)


@click.command(cls=Command)
@click.argument("file")
@click.option(
    "--full", is_flag=True, help="Everything: all settings as JSON, every array by shape."
)
def inspect(**options: Any) -> None:
    """Verify a model FILE and describe its contents.

    Files of adapted patients are patient data: their rows are counted, never shown.

    \b
    Examples:
        ehrmeta inspect hdl.ehrmeta
        ehrmeta inspect hdl.ehrmeta --full
    """
    work.describe_file(**options)
