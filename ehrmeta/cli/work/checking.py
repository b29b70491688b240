"""Problems of a table."""

from typing import Any

import click

from ehrmeta.cli.work.tables import printable, read_rows, reworded
from ehrmeta.data import Findings, Schema, check_table


def check_file(
    table: str, schema_file: str | None, write_schema: str | None, strict: bool, **roles: Any
) -> None:
    """Print the schema of a table and its findings; status 1 if it cannot be used."""
    if schema_file is not None:
        if roles["task"] is not None or roles["target"] is not None:
            raise click.UsageError("--schema names the columns: leave out --task and --target.")
        schema = Schema.from_toml(schema_file)
        frame, _ = read_rows(table, schema)
    else:
        frame, schema = read_rows(table, **roles)
    click.echo(printable(f"{schema!r}\n"))
    findings = check_table(frame, schema)
    click.echo(printable(repr(Findings(map(reworded, findings)))))
    if write_schema is not None:
        schema.to_toml(write_schema)
        click.echo(f"\nsaved {write_schema}")
    excused = "missing outcomes" if roles["drop_missing_target"] else ""
    errors = [finding for finding in findings.errors if finding.what != excused]
    if errors or (strict and findings):
        raise SystemExit(1)
