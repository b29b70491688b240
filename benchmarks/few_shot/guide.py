"""Command ``table``: tables of saved few-shot records, for a page of the docs."""

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.few_shot.digits import digits_table
from benchmarks.few_shot.sinusoid import sinusoid_table
from benchmarks.suite.command import SUITES
from benchmarks.suite.record import Record
from ehrmeta.cli.options import Command
from ehrmeta.errors import DataError

Table = Callable[[Sequence[Record]], str]

BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"
_TABLES: dict[str, Table] = {"sinusoid": sinusoid_table, "digits": digits_table}


def learner_tables(paths: Sequence[str | os.PathLike[str]]) -> str:
    """Tables of files written by ``python -m benchmarks sinusoid | digits --json``.

    Each has its command, date and machine.
    """
    return "\n\n".join(map(_table, paths))


def put_tables(page: str, tables: str) -> str:
    """Insert the tables between the two marks of a page.

    Examples
    --------
    >>> page = f"Learners{chr(10)}{BEGIN}{chr(10)}old{chr(10)}{END}{chr(10)}"
    >>> print(put_tables(page, "new"))
    Learners
    <!-- measured -->
    ```text
    new
    ```
    <!-- end of measured -->
    <BLANKLINE>
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise DataError(
            f"the page needs the marks {BEGIN} and {END}, each once, on their own lines."
        )
    block = f"{BEGIN}\n```text\n{tables}\n```\n{END}"
    return re.sub(f"{BEGIN}.*{END}", lambda _: block, page, flags=re.DOTALL)


def _table(path: str | os.PathLike[str]) -> str:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        records = [Record(**fields) for fields in content["records"]]
        table = _TABLES[records[0].suite](records)
        return f"{table}\n\n{content['command']}, {_measured_on(content['machine'])}"
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(
            f"'{path}' has no records of {' or '.join(_TABLES)} ({type(error).__name__}). Write "
            "them with 'python -m benchmarks sinusoid --json FILE'."
        ) from error


def _measured_on(machine: dict[str, Any]) -> str:
    return f"{machine['date']}, {machine['cpus']} CPU cores, torch {machine['versions']['torch']}"


@click.command(cls=Command)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--into",
    "page",
    metavar="PAGE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Insert them between the marks of this page.",
)
def table(files: tuple[str, ...], page: Path | None) -> None:
    """Show the tables of saved records of sinusoid and digits.

    \b
    Example:
        python -m benchmarks table docs/sinusoid.json docs/digits.json --into docs/which_learner.md
    """
    tables = learner_tables(files)
    if page is None:
        click.echo(tables)
        return
    page.write_text(put_tables(page.read_text(encoding="utf-8"), tables), encoding="utf-8")
    click.echo(f"saved {page}")


SUITES["table"] = table
