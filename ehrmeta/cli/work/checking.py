"""Problems of a table."""

from collections.abc import Iterator
from typing import Any

import click

from ehrmeta.cli.work.tables import (
    Rows,
    in_command_words,
    printable,
    read_rows,
    table_of,
    with_lines,
)
from ehrmeta.data import Finding, check_table

_ALIKE = 3  # more findings of one kind are one line
_NAMED = 3  # columns named in it


def check_file(table: str, write_schema: str | None, strict: bool, **options: Any) -> None:
    """Print the schema of a table and its findings; status 1 if it cannot be used."""
    rows = read_rows(table, classes="detect", **options)
    schema = rows.schema
    click.echo(printable(f"{_sizes(rows)}\n{schema!r}\n"))
    lines = list(findings_of(rows, table, **options))
    click.echo("\n".join(map(printable, lines)) or "nothing found")
    if write_schema is not None:
        schema.to_toml(write_schema)
        click.echo(f"\nsaved {write_schema}")
    is_unusable = any(line.startswith("error") for line in lines)
    if not is_unusable:  # raises what only the whole table shows
        is_unusable = table_of(rows, table, **options).n_tasks < 2
    if is_unusable or (strict and lines):
        raise SystemExit(1)


def findings_of(rows: Rows, source: str, **options: Any) -> Iterator[str]:
    """Lines with the findings of a check, errors first; alike ones are summed up."""
    excused = "missing outcomes" if options.get("drop_missing_target") else ""
    alike: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in check_table(rows.frame, rows.schema):
        level = "warning" if finding.what == excused else finding.level
        alike.setdefault((level, finding.what, str(finding.remedy)), []).append(finding)
    for (level, what, _), findings in alike.items():
        if len(findings) > _ALIKE:
            names = ", ".join(f"'{finding.column}'" for finding in findings[:_NAMED])
            others = f" and {len(findings) - _NAMED:,} others" if len(findings) > _NAMED else ""
            remedy = in_command_words(findings[0].remedy)
            yield f"{level:<7}  {len(findings):,} columns ({names}{others}): {what}. {remedy}"
        else:
            yield from (f"{level:<7}  {_text(one, source, options)}" for one in findings)


def _sizes(rows: Rows) -> str:
    """How many rows and tasks there are."""
    frame, task = rows.frame, rows.schema.task
    if task is None or task not in frame:
        return f"{len(frame):,} rows"
    n_tasks = frame[task].nunique()
    return f"{len(frame):,} rows of {n_tasks:,} {rows.schema.task_kind}s"


def _text(finding: Finding, source: str, options: dict[str, Any]) -> str:
    """A finding in words of the command line; errors name the first line."""
    if finding.error is None:
        return in_command_words(finding)
    parts = (with_lines(part, source, **options) for part in finding.error.args)
    return " ".join(map(in_command_words, parts))
