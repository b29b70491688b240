"""A report on a saved forecaster."""

import tomllib
from pathlib import Path
from typing import Any

import click

from ehrmeta.cli.work.evaluating import test_and_baselines
from ehrmeta.errors import DataError
from ehrmeta.estimators import ConformalRegressor, MetaRegressor
from ehrmeta.persistence import read_bundle
from ehrmeta.report import Document, forecast_report


def write_report(
    model: str,
    table: str,
    out: str,
    answers: str | None,
    examples: int,
    title: str,
    shots: tuple[int, ...],
    **reading: Any,
) -> None:
    """Test a forecaster and write the report."""
    Document(title, ()).check_path(out)
    forecaster, fitted = _load_forecaster(model)
    test, baselines = test_and_baselines(fitted, model, table, **reading)
    document = forecast_report(
        forecaster,
        test.X,
        test.y,
        groups=test.groups,
        time=test.time,
        baselines=baselines,
        findings=test.findings,
        answers=_read_answers(answers),
        examples=examples,
        title=title,
        shots=shots,
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
