"""Commands that look and change nothing: what a table is wrong in, what a file holds."""

from __future__ import annotations

import json
from typing import Any

import click

from ehrmeta.cli_options import table_options
from ehrmeta.cli_tables import read_with_roles
from ehrmeta.data import Schema
from ehrmeta.data.frame_file import read_frame
from ehrmeta.persistence import read_bundle

__all__ = ["check", "inspect"]


@click.command()
@click.argument("table")
@table_options
@click.option("--schema", "schema_file", metavar="FILE", help="TOML file with the columns' roles.")
@click.option("--write-schema", metavar="FILE", help="Save the guessed roles, to correct them.")
@click.option("--strict", is_flag=True, help="Warnings too end in exit status 1.")
def check(
    table: str,
    schema_file: str | None,
    write_schema: str | None,
    strict: bool,
    task: str | None,
    target: str | None,
    drop_missing_target: bool,
    **roles: Any,
) -> None:
    """List all that is wrong or odd about TABLE; exit status 1 where it cannot be used.

    \b
    Examples:
        ehrmeta check visits.csv --task patient --time day --target hdl --write-schema visits.toml
        ehrmeta check visits.csv --schema visits.toml
    """
    if schema_file is not None:
        if task is not None or target is not None:
            raise click.UsageError("--schema names the columns: leave out --task and --target.")
        schema = Schema.from_toml(schema_file)
        frame = read_frame(table, text=() if schema.task is None else (schema.task,))
    elif task is None or target is None:
        raise click.UsageError("pass --task and --target, or --schema.")
    else:
        frame, schema = read_with_roles(table, task=task, target=target, **roles)
    click.echo(f"{schema!r}\n")
    findings = schema.check(frame)
    click.echo(repr(findings))
    if write_schema is not None:
        schema.to_toml(write_schema)
        click.echo(f"\nsaved {write_schema}")
    errors = [
        finding
        for finding in findings.errors
        if not (drop_missing_target and finding.what == "missing outcomes")
    ]
    if errors or (strict and findings):
        raise SystemExit(1)


@click.command()
@click.argument("file")
def inspect(file: str) -> None:
    """Print everything that a model FILE holds: settings as JSON, then the arrays by shape.

    The file is verified first. Of a file of adapted patients, which is patient data, the rows are
    shown by shape only.

    \b
    Example:
        ehrmeta inspect hdl.ehrmeta
    """
    tensors, metadata = read_bundle(file)
    click.echo(json.dumps(metadata, indent=2, ensure_ascii=False))
    width = max(map(len, tensors), default=0)
    for name, tensor in tensors.items():
        kind = str(tensor.dtype).removeprefix("torch.")
        click.echo(f"{name:<{width}}  {kind:<8} {' x '.join(map(str, tensor.shape)) or 'one'}")
    if metadata.get("contains_patient_data"):
        click.echo("\nThis file holds patient data: the support rows and labels of its tasks.")
