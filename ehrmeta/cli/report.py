"""Command ``ehrmeta report``: a report on a saved forecaster."""

import tomllib
from pathlib import Path
from typing import Any

import click

from ehrmeta.cli.models import test_and_baselines
from ehrmeta.cli.tables import scoring_options
from ehrmeta.errors import DataError
from ehrmeta.estimators import ConformalRegressor, MetaRegressor
from ehrmeta.persistence import read_bundle
from ehrmeta.report import Document, forecast_report


@click.command()
@click.argument("model")
@click.argument("table")
@click.option("--out", required=True, help="File to write: .html, .md or .json.")
@scoring_options("0,1,2,3,5")
@click.option("--answers", metavar="FILE", help='TOML file of checklist answers: 5a = "...".')
@click.option("--examples", type=click.IntRange(0, 20), default=0, help="Draw so many patients.")
@click.option("--title", default="", show_default=False, help="Of the report.")
def report(
    model: str,
    table: str,
    out: str,
    train: str | None,
    hold_out: float | None,
    answers: str | None,
    **settings: Any,
) -> None:
    """Write a report on how well MODEL forecasts the patients of TABLE, overall and in subgroups.

    None of them may have been in training: pass another table, or hold patients out.

    \b
    Examples:
        ehrmeta report hdl.ehrmeta test.csv --train train.csv --out report.html
        ehrmeta report bili.ehrmeta pbcseq --hold-out 0.2 --out report.html
    """
    Document(settings["title"], ()).check_path(out)
    forecaster, fitted = _load_forecaster(model)
    test, baselines = test_and_baselines(fitted, model, table, train=train, hold_out=hold_out)
    document = forecast_report(
        forecaster,
        test.X,
        test.y,
        groups=test.groups,
        time=test.time,
        baselines=baselines,
        findings=test.findings,
        answers=_read_answers(answers),
        **settings,
    )
    document.save(out)
    click.echo(f"{len(document.sections)} sections on {test.n_tasks:,} patients, saved {out}")


def _load_forecaster(path: str) -> tuple[MetaRegressor | ConformalRegressor, MetaRegressor]:
    """Load a model, calibrated or not; returns it and the uncalibrated model."""
    if read_bundle(path)[1].get("kind") != "calibrated":
        plain = MetaRegressor.load(path)
        return plain, plain
    calibrated = ConformalRegressor.load(path)
    model: Any = calibrated.model
    return calibrated, model


def _read_answers(path: str | None) -> dict[str, str]:
    """Read answers by checklist item from a TOML file, such as ``5a = "..."``."""
    if path is None:
        return {}
    try:
        answers = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' is not a valid TOML file: {error}.") from error
    return {str(item): str(answer) for item, answer in answers.items()}
