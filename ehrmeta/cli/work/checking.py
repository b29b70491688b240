"""Problems of a table."""

from typing import Any

import click

from ehrmeta.cli.work.tables import in_command_words, printable, read_rows, with_lines
from ehrmeta.data import Finding, check_table


def check_file(table: str, write_schema: str | None, strict: bool, **options: Any) -> None:
    """Print the schema of a table and its findings; status 1 if it cannot be used."""
    frame, schema = read_rows(table, **options)
    click.echo(printable(f"{schema!r}\n"))
    findings = check_table(frame, schema)
    for finding in findings:
        click.echo(f"{finding.level:<7}  {printable(_text(finding, table, options))}")
    if not findings:
        click.echo("nothing found")
    if write_schema is not None:
        schema.to_toml(write_schema)
        click.echo(f"\nsaved {write_schema}")
    excused = "missing outcomes" if options["drop_missing_target"] else ""
    errors = [finding for finding in findings.errors if finding.what != excused]
    if errors or (strict and findings):
        raise SystemExit(1)


def _text(finding: Finding, source: str, options: dict[str, Any]) -> str:
    """A finding in words of the command line; errors name the first line."""
    if finding.error is None:
        return in_command_words(finding)
    parts = (with_lines(part, source, **options) for part in finding.error.args)
    return " ".join(map(in_command_words, parts))
