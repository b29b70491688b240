"""Scores of a model on test patients beside baselines, printed or as a report."""

import tomllib
import warnings
from pathlib import Path
from typing import Any

import click

from ehrmeta.algorithms import Population
from ehrmeta.baselines import (
    HistoryBoosting,
    LastValue,
    MixedEffects,
    MixedEffectsLogistic,
    PopulationBoosting,
    TaskLogistic,
    TaskMean,
)
from ehrmeta.cli import tables
from ehrmeta.cli.messages import printable, stage
from ehrmeta.cli.predict import load_model
from ehrmeta.data import Table
from ehrmeta.errors import DataError, DataWarning, Remedy
from ehrmeta.estimators import ConformalClassifier, ConformalRegressor, MetaClassifier
from ehrmeta.estimators.files import data_digest
from ehrmeta.estimators.k_shot_protocol import shots_to_score
from ehrmeta.evaluation import k_shot_class_curve, k_shot_curve
from ehrmeta.persistence import read_bundle, write_bundle
from ehrmeta.report import Document, forecast_report, k_shot_table, risk_report
from ehrmeta.report.disclosure import MIN_CELL


def evaluate_model(
    model: str, table: str, shots: tuple[int, ...] | None, baselines: bool | None, **others: Any
) -> None:
    """Print the k-shot table of a model and of baselines."""
    if baselines and others["train"] is None and others["hold_out"] is None:
        raise click.UsageError("baselines need data to be fitted on: pass --train or --hold-out.")
    fitted = uncalibrated(load_model(model))
    test, fitted_baselines = test_and_baselines(
        fitted, model, table, **others, baselines=baselines is not False
    )
    models = fitted_baselines | {"ehrmeta": fitted}
    rows: dict[str, Any] = {"groups": test.groups, "time": test.time}
    settings: dict[str, Any] = {
        "shots": shots_to_score(test.tasks, shots, (1, 3, 5)),
        "reference": "ehrmeta",
    }
    settings |= {"allow_training_table": True}  # checked above
    of_classes = hasattr(fitted, "classes_")
    curve_of = k_shot_class_curve if of_classes else k_shot_curve
    with stage("scoring"):
        curve = curve_of(models, test.X, test.y, **rows, **settings, confidence_level=0.95)
    outcome = tables.schema_of(fitted.model_, model).outcome
    unit = outcome.unit if outcome and not of_classes else ""
    metrics = [m for m in ("log_loss", "auroc") if m in set(curve["metric"])] or ["rmse_macro"]
    for metric in metrics:
        click.echo(k_shot_table(curve, reference="ehrmeta", metric=metric, unit=unit))
    if len(models) > 1:
        click.echo("ranges: 95 % interval of (row - ehrmeta), paired over patients; * excludes 0.")


def write_report(
    model: str,
    table: str,
    out: str,
    answers: str | None,
    examples: int,
    event: str | None,
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
    usual = [k for k in (0, 1, 2, 3, 5) if (test.tasks.sizes > k).sum() >= MIN_CELL]
    rows |= {"shots": shots_to_score(test.tasks, shots, usual), "findings": test.findings}
    rows |= {"allow_training_table": True}  # checked above
    rows |= {"answers": _read_answers(answers), "title": title}
    with stage("testing"):
        if hasattr(fitted, "classes_"):
            if examples:
                raise click.UsageError("--examples is for a target of numbers.")
            rows["event"] = tables.event_of(fitted.classes_, event)
            document = risk_report(fitted, test.X, test.y, **rows)
        else:
            tables.event_of(None, event)
            document = forecast_report(forecaster, test.X, test.y, **rows, examples=examples)
    document.save(out)
    click.echo(printable(f"{document.sections[0].paragraphs[0]} Saved {out}."))


def _read_answers(path: str | None) -> dict[str, str]:
    """Read answers by checklist item from a TOML file, such as ``5a = "..."``."""
    if path is None:
        return {}
    try:
        answers = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' is not a valid TOML file: {error}.") from error
    return {str(item): str(answer) for item, answer in answers.items()}


def uncalibrated(model: Any) -> Any:
    """The model under a calibrated one, or the model itself."""
    return model.model if isinstance(model, ConformalRegressor | ConformalClassifier) else model


def comparators(*, outcome_transform: Any = None, random_state: int = 0) -> dict[str, Any]:
    """Unfitted baselines of a k-shot table, by name."""
    scale = {"outcome_transform": outcome_transform}
    return {
        "population (boosting)": PopulationBoosting(**scale, random_state=random_state),
        "last value": LastValue(**scale),
        "patient mean": TaskMean(**scale),
        "mixed model with slope": MixedEffects(**scale),
        "boosting with history": HistoryBoosting(**scale, random_state=random_state),
    }


def class_comparators(n_classes: int) -> dict[str, Any]:
    """Unfitted baselines of a table of classes, by name."""
    if n_classes > 2:
        return {"population (network)": MetaClassifier(Population(), random_state=0)}
    return {"own rows (logistic)": TaskLogistic(), "mixed logistic model": MixedEffectsLogistic()}


def test_and_baselines(
    fitted: Any,
    path: str,
    table: str,
    *,
    train: str | None,
    hold_out: float | None,
    schema_file: str | None,
    allow_training_table: bool,
    baselines: bool = True,
    **form: Any,
) -> tuple[Table, dict[str, Any]]:
    """The test patients in `table`, and baselines fitted on other patients if there are any.

    Baselines are fitted to the table `train`. With `hold_out`, the test patients are that share of
    `table`, which was excluded when the model was fitted, and baselines are fitted to the others.
    """
    classes = getattr(fitted, "classes_", None)
    reading = {
        "schema": tables.schema_of(fitted.model_, path, schema_file),
        "classes": classes,
        **form,
    }
    test = tables.read_table(table, **reading)
    tables.left_out(test)
    others = None if train is None else tables.read_table(train, **reading)
    if hold_out is None:
        if not allow_training_table:
            _refuse_training_table(fitted, path, test)
    else:
        _check_held_out(path, hold_out, test.n_tasks)
        rest, test = test.split(hold_out, random_state=0)
        others = rest if others is None else others
    if others is None or not baselines:
        return test, {}
    if classes is None:
        scale = fitted.outcome_transform
        models = comparators(outcome_transform=None if scale == "auto" else scale)
    else:
        models = class_comparators(len(classes))
    with stage("fitting baselines"):
        for model in models.values():
            model.fit(others.X, others.y, groups=others.groups, time=others.time)
    return test, models


def _refuse_training_table(fitted: Any, path: str, test: Table) -> None:
    """Raise an error if a model was trained on this table, or on all of it except held-out tasks.

    A file holds a digest of the tasks, times and outcomes of its training.
    """
    held_out = read_bundle(path)[1].get("held_out")
    tables_of_fit = [test]
    if held_out is not None and held_out["n_tasks"] == test.n_tasks:
        tables_of_fit.append(test.split(held_out["share"], random_state=0)[0])
    for table in tables_of_fit:
        rows = {"groups": table.groups, "time": table.time}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # given when the table is scored
            _, encoded = fitted.fitted_model().read_support(table.X, table.y, **rows)
        if data_digest(encoded) == fitted.data_digest_:
            advice: str | Remedy = Remedy("training-table", "")
            if held_out is not None:
                share = f"--hold-out {held_out['share']:g}"
                advice = f"Pass {share} to test it on those that were not in its training."
            raise DataError(
                f"the model in '{path}' was trained on patients of this table: scores on them "
                "are too optimistic.",
                advice,
            )


def mark_held_out(path: str, share: float, n_tasks: int) -> None:
    """Store in a model file the share of tasks held out from training, and their number."""
    tensors, metadata = read_bundle(path)
    write_bundle(path, tensors, metadata | {"held_out": {"share": share, "n_tasks": n_tasks}})


def _check_held_out(path: str, share: float, n_tasks: int) -> None:
    """Raise an error unless these tasks were held out when this model was trained."""
    training = read_bundle(path)[1].get("held_out")
    if training is None:
        raise DataError(
            f"--hold-out {share:g}: '{path}' was fitted without --hold-out, so the held-out "
            f"patients were in its training. Fit again with --hold-out {share:g}, or evaluate on a "
            "table of other patients."
        )
    if training != {"share": share, "n_tasks": n_tasks}:
        raise DataError(
            f"--hold-out {share:g} of {n_tasks:,} tasks does not select the tasks held out "
            f"when '{path}' was fitted ({training['share']:g} of {training['n_tasks']:,}). Pass "
            f"the table of `fit` and --hold-out {training['share']:g}."
        )
