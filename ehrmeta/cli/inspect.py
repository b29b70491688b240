"""Commands ``ehrmeta check`` and ``inspect``: problems of a table, contents of a model file."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click
from torch import Tensor

from ehrmeta.cli.tables import read_rows, reworded, table_options
from ehrmeta.data import Findings, Schema, check_table
from ehrmeta.estimators import Adapted, ConformalClassifier, ConformalRegressor
from ehrmeta.loading import load
from ehrmeta.nn import MLP
from ehrmeta.persistence import read_bundle


@click.command()
@click.argument("table")
@table_options
@click.option("--schema", "schema_file", metavar="FILE", help="TOML file with the columns' roles.")
@click.option("--write-schema", metavar="FILE", help="Save the guessed roles, to correct them.")
@click.option("--strict", is_flag=True, help="Exit with status 1 on warnings, too.")
def check(
    table: str, schema_file: str | None, write_schema: str | None, strict: bool, **roles: Any
) -> None:
    """List all problems of TABLE; exit status 1 if it cannot be used.

    \b
    Examples:
        ehrmeta check visits.csv --task patient --time day --target hdl --write-schema visits.toml
        ehrmeta check visits.csv --schema visits.toml
    """
    if schema_file is not None:
        if roles["task"] is not None or roles["target"] is not None:
            raise click.UsageError("--schema names the columns: leave out --task and --target.")
        schema = Schema.from_toml(schema_file)
        frame, _ = read_rows(table, schema)
    else:
        frame, schema = read_rows(table, **roles)
    click.echo(_printable(f"{schema!r}\n"))
    findings = check_table(frame, schema)
    click.echo(_printable(repr(Findings(map(reworded, findings)))))
    if write_schema is not None:
        schema.to_toml(write_schema)
        click.echo(f"\nsaved {write_schema}")
    excused = "missing outcomes" if roles["drop_missing_target"] else ""
    errors = [finding for finding in findings.errors if finding.what != excused]
    if errors or (strict and findings):
        raise SystemExit(1)


@click.command()
@click.argument("file")
@click.option(
    "--full", is_flag=True, help="Everything: all settings as JSON, every array by shape."
)
def inspect(file: str, full: bool) -> None:
    """Verify a model FILE and describe its contents.

    Files of adapted patients are patient data: their rows are counted, never shown.

    \b
    Examples:
        ehrmeta inspect hdl.ehrmeta
        ehrmeta inspect hdl.ehrmeta --full
    """
    tensors, metadata = read_bundle(file)
    if full:
        lines = [json.dumps(metadata, indent=2, ensure_ascii=False), *_shapes(tensors)]
    elif "belongs_to" in metadata:
        lines = ["checkpoint of a training, without rows of its table", _size(tensors)]
    else:
        lines = [*_summary(load(file)), _size(tensors)]
    click.echo("\n".join(map(_printable, lines)))
    if metadata.get("contains_patient_data"):
        click.echo("\nThis file contains patient data: the support rows and labels of its tasks.")
    elif not full:
        click.echo("\nThis file contains no row and no label of any task; --full prints all of it.")


def _summary(loaded: Any) -> Iterator[str]:
    """Describe a model, and its adapted tasks if any, in a few lines."""
    if isinstance(loaded, Adapted):
        yield repr(loaded)
        model: Any = loaded.model
    else:
        if isinstance(loaded, ConformalRegressor | ConformalClassifier):
            yield f"{type(loaded).__name__}, calibrated after {loaded.shots} values"
            loaded = loaded.model
        model = loaded.model_
    origin, settings = model.provenance, model.settings
    yield f"{model.name} of {origin['saved'][:10]}, by ehrmeta {origin['ehrmeta']}"
    yield f"algorithm   {model.learner.algorithm!r}"
    yield f"backbone    {settings['backbone'] or MLP()!r}"
    if model.population is not None:
        population = settings["population"] or model.population
        yield f"population  {type(population).__name__}, as arrays"
    steps = f"{model.history[-1]['step']:,.0f} steps, " if model.history else ""
    yield f"trained on  {model.n_tasks:,} tasks, {steps}seed {origin['random_state']}"
    if model.schema is not None:
        for line in repr(model.schema).splitlines():
            role, _, text = line.partition("  ")
            yield f"{role:<10}  {text.strip()}"
    else:
        yield f"features    {', '.join(feature.name for feature in model.table.features)}"


def _size(tensors: Mapping[str, Tensor]) -> str:
    n_numbers = sum(tensor.numel() for tensor in tensors.values())
    return f"{len(tensors):,} arrays, {n_numbers:,} numbers"


def _shapes(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    width = max(map(len, tensors), default=0)
    for name, tensor in tensors.items():
        kind = str(tensor.dtype).removeprefix("torch.")
        yield f"{name:<{width}}  {kind:<8} {' x '.join(map(str, tensor.shape)) or 'one'}"


def _printable(text: str) -> str:
    """Escape control characters, with which a file could control the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
