"""A report on a saved forecaster, as one file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click

from ehrmeta.cli.demo import opponents
from ehrmeta.cli.tables import check_held_out, numbers, read_table, schema_of
from ehrmeta.errors import DataError
from ehrmeta.estimators import ConformalRegressor, MetaRegressor
from ehrmeta.persistence import read_bundle
from ehrmeta.report import Document, forecast_report

__all__ = ["report"]


@click.command()
@click.argument("model")
@click.argument("table")
@click.option("--out", required=True, help="File to write: .html, .md or .json.")
@click.option(
    "--shots",
    metavar="N,N",
    callback=numbers,
    default="0,1,2,3,5",
    show_default=True,
    help="Values k that are shown of each patient.",
)
@click.option("--train", metavar="TABLE", help="Table to fit baselines on, to compare with.")
@click.option(
    "--hold-out",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Report on the patients that `fit --hold-out` left out; fit baselines on the others.",
)
@click.option("--answers", metavar="FILE", help='TOML file of checklist answers: 5a = "...".')
@click.option(
    "--examples", type=click.IntRange(0, 20), default=0, help="Draw so many patients' values."
)
@click.option("--title", default="", help="Of the report.")
def report(
    model: str,
    table: str,
    out: str,
    shots: tuple[int, ...],
    train: str | None,
    hold_out: float | None,
    answers: str | None,
    examples: int,
    title: str,
) -> None:
    """Write a report on how well MODEL forecasts the patients of TABLE, for whom, and what is open.

    None of them should have been in training: pass another table, or hold patients out.

    \b
    Examples:
        ehrmeta report hdl.ehrmeta test.csv --train train.csv --out report.html
        ehrmeta report bili.ehrmeta pbcseq --hold-out 0.2 --out report.html
    """
    Document(title, ()).check_path(out)
    found, fitted = _loaded(model)
    schema = schema_of(fitted, model)
    test = read_table(table, schema)
    seen = None if train is None else read_table(train, schema)
    if hold_out is not None:
        check_held_out(model, hold_out, test.n_tasks)
        rest, test = test.split(hold_out, random_state=0)
        seen = rest if seen is None else seen
    rivals: dict[str, Any] = {}
    if seen is not None:
        rivals = opponents(outcome_transform=fitted.outcome_transform)
        for rival in rivals.values():
            rival.fit(seen.X, seen.y, groups=seen.groups, time=seen.time)
    document = forecast_report(
        found,
        test.X,
        test.y,
        groups=test.groups,
        time=test.time,
        baselines=rivals,
        shots=shots,
        findings=test.findings,
        answers=_read_answers(answers),
        examples=examples,
        title=title,
    )
    document.save(out)
    click.echo(f"{len(document.sections)} sections on {test.n_tasks:,} patients, saved {out}")


def _loaded(path: str) -> tuple[MetaRegressor | ConformalRegressor, MetaRegressor]:
    """What the file holds, a calibrated model or a plain one, and the model itself."""
    if read_bundle(path)[1].get("kind") != "calibrated":
        plain = MetaRegressor.load(path)
        return plain, plain
    calibrated = ConformalRegressor.load(path)
    model: Any = calibrated.model
    return calibrated, model


def _read_answers(path: str | None) -> dict[str, str]:
    """Item of the checklist to answer; keys of TOML may be bare, as in ``5a = "..."``."""
    if path is None:
        return {}
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' is no TOML file: {error}.") from error
    return {str(item): str(answer) for item, answer in found.items()}
