"""A report on a saved forecaster."""

import tomllib
from pathlib import Path
from typing import Any

import click

from ehrmeta.cli.work.evaluating import shots_for, test_and_baselines, uncalibrated
from ehrmeta.cli.work.predicting import load_model
from ehrmeta.cli.work.running import stage
from ehrmeta.errors import DataError
from ehrmeta.report import Document, forecast_report, risk_report


def write_report(
    model: str,
    table: str,
    out: str,
    answers: str | None,
    examples: int,
    title: str,
    shots: tuple[int, ...] | None,
    **reading: Any,
) -> None:
    """Test a forecaster and write the report."""
    Document(title, ()).check_path(out)
    forecaster = load_model(model)
    fitted = uncalibrated(forecaster)
    test, baselines = test_and_baselines(fitted, model, table, **reading)
    rows: dict[str, Any] = {"groups": test.groups, "time": test.time, "baselines": baselines}
    rows |= {"shots": shots_for(test, shots, (0, 1, 2, 3, 5)), "findings": test.findings}
    with stage("testing"):
        if hasattr(fitted, "classes_"):
            if answers or examples:
                raise click.UsageError("--answers and --examples are for a target of numbers.")
            document = risk_report(fitted, test.X, test.y, **rows, title=title)
        else:
            rows |= {"answers": _read_answers(answers), "examples": examples, "title": title}
            document = forecast_report(forecaster, test.X, test.y, **rows)
    document.save(out)
    click.echo(f"{len(document.sections)} sections on {test.n_tasks:,} patients, saved {out}")


def _read_answers(path: str | None) -> dict[str, str]:
    """Read answers by checklist item from a TOML file, such as ``5a = "..."``."""
    if path is None:
        return {}
    try:
        answers = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' is not a valid TOML file: {error}.") from error
    return {str(item): str(answer) for item, answer in answers.items()}
