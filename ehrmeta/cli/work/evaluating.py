"""Scores of a model on test patients, beside baselines."""

from typing import Any

import click

from ehrmeta.baselines import HistoryBoosting, LastValue, MixedEffects, PopulationBoosting, TaskMean
from ehrmeta.cli.work import tables
from ehrmeta.data import Table
from ehrmeta.errors import DataError
from ehrmeta.estimators import MetaRegressor
from ehrmeta.evaluation import k_shot_curve
from ehrmeta.persistence import read_bundle, write_bundle
from ehrmeta.report import k_shot_table


def evaluate_model(
    model: str, table: str, shots: tuple[int, ...], baselines: bool | None, **others: Any
) -> None:
    """Print the k-shot table of a model and of baselines."""
    if baselines and others["train"] is None and others["hold_out"] is None:
        raise click.UsageError("baselines need data to be fitted on: pass --train or --hold-out.")
    fitted = MetaRegressor.load(model)
    test, fitted_baselines = test_and_baselines(
        fitted, model, table, **others, baselines=baselines is not False
    )
    models = fitted_baselines | {"ehrmeta": fitted}
    curve = k_shot_curve(
        models,
        test.X,
        test.y,
        groups=test.groups,
        time=test.time,
        shots=shots,
        reference="ehrmeta",
        confidence_level=0.95,
    )
    outcome = tables.schema_of(fitted.model_, model).outcome
    click.echo(k_shot_table(curve, reference="ehrmeta", unit=outcome.unit if outcome else ""))
    if len(models) > 1:
        click.echo("ranges: 95 % interval of (row - ehrmeta), paired over patients; * excludes 0.")


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


def test_and_baselines(
    fitted: MetaRegressor,
    path: str,
    table: str,
    *,
    train: str | None,
    hold_out: float | None,
    schema_file: str | None,
    baselines: bool = True,
    **form: Any,
) -> tuple[Table, dict[str, Any]]:
    """The test patients in `table`, and baselines fitted on other patients if there are any.

    These are in the table `train`, or in `table` if only a share `hold_out` of it, which was
    excluded when the model was fitted, is for testing.
    """
    schema = tables.schema_of(fitted.model_, path, schema_file)
    reading = {"schema": schema, "drop_missing_target": True, **form}
    test = tables.read_table(table, **reading)
    others = None if train is None else tables.read_table(train, **reading)
    if hold_out is not None:
        _check_held_out(path, hold_out, test.n_tasks)
        rest, test = test.split(hold_out, random_state=0)
        others = rest if others is None else others
    if others is None or not baselines:
        return test, {}
    models = comparators(outcome_transform=fitted.outcome_transform)
    for model in models.values():
        model.fit(others.X, others.y, groups=others.groups, time=others.time)
    return test, models


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
            f"--hold-out {share:g} of {n_tasks:,} tasks selects other tasks than those held out "
            f"when '{path}' was fitted ({training['share']:g} of {training['n_tasks']:,}). Pass "
            f"the table of `fit` and --hold-out {training['share']:g}."
        )
