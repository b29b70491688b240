"""Commands ``ehrmeta fit``, ``adapt``, ``predict`` and ``evaluate``."""

import dataclasses
import os
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import pandas as pd

from ehrmeta.algorithms import ALGORITHMS
from ehrmeta.baselines import HistoryBoosting, LastValue, MixedEffects, PopulationBoosting, TaskMean
from ehrmeta.cli import tables
from ehrmeta.data import Schema, Table
from ehrmeta.data.clock import to_time
from ehrmeta.data.columns import require_columns
from ehrmeta.data.table_file import write_frame
from ehrmeta.errors import DataError, SchemaError
from ehrmeta.estimators import Adapted, MetaRegressor, TaskModel
from ehrmeta.estimators.adapted import NewGroups
from ehrmeta.evaluation import k_shot_curve
from ehrmeta.loading import load
from ehrmeta.persistence import read_bundle, write_bundle
from ehrmeta.report import k_shot_table


@click.command()
@click.argument("table")
@tables.table_options
@click.option("--algorithm", type=click.Choice(list(ALGORITHMS)), default="deep-mixed-effects")
@tables.training_options
@click.option(
    "--hold-out", type=tables.SHARE, help="Share of patients to exclude, for `evaluate --hold-out`."
)
@click.option("--out", required=True, callback=tables.writable, help="Model file to write.")
def fit(table: str, algorithm: str, hold_out: float | None, out: str, **options: Any) -> None:
    """Meta-train on the visits in TABLE, a file or the name of a bundled data set.

    \b
    Examples:
        ehrmeta fit visits.csv --task patient --time day --target hdl --out hdl.ehrmeta
        ehrmeta fit pbcseq --likelihood student_t --hold-out 0.2 --out bili.ehrmeta
    """
    visits = tables.read_table(table, **options)
    n_tasks = visits.n_tasks
    if hold_out is not None:
        visits, _ = visits.split(hold_out, random_state=0)
    click.echo(describe(visits))
    model = regressor(algorithm, options)
    model.fit(visits.X, visits.y, groups=visits.groups, time=visits.time)
    model.save(out)
    if hold_out is not None:
        mark_held_out(out, hold_out, n_tasks)
    summary = "too few tasks for training steps: mixed model"
    if model.history_:
        last = model.history_[-1]
        summary = f"trained {last['step']:,.0f} steps in {last['seconds']:.0f} s"
    click.echo(f"{summary}, saved {out}")


@click.command()
@click.argument("model")
@click.argument("visits")
@click.option("--out", required=True, callback=tables.writable, help="File to write: patient data.")
def adapt(model: str, visits: str, out: str) -> None:
    """Adapt MODEL to new patients from the VISITS they have had so far.

    Columns have the names they had in `fit`.

    \b
    Example:
        ehrmeta adapt hdl.ehrmeta new_visits.csv --out patients.ehrmeta
    """
    fitted = MetaRegressor.load(model)
    support = tables.read_table(
        visits, schema_of(fitted.model_, model), on_constant_outcome="allow"
    )
    adapted = fitted.adapt(support.X, support.y, groups=support.groups, time=support.time)
    umask = os.umask(0o077)  # readable by the owner only, from the first byte
    try:
        adapted.save(out)
    finally:
        os.umask(umask)
    Path(out).chmod(0o600)  # overwriting does not change permissions
    click.echo(f"{adapted}, saved {out} (patient data: protect it like the visits)")


@click.command()
@click.argument("model")
@click.argument("rows")
@click.option("--support", metavar="VISITS", help="Visits to adapt to before predicting.")
@click.option(
    "--new-groups", type=click.Choice(get_args(NewGroups)), default="error", show_default=False
)
@click.option("--confidence-level", type=tables.SHARE, default=0.9, help="Of the intervals.")
@click.option(
    "--out", required=True, callback=tables.writable, help="Table to write: .csv or .parquet."
)
def predict(
    model: str,
    rows: str,
    support: str | None,
    new_groups: NewGroups,
    confidence_level: float,
    out: str,
) -> None:
    """Predict every row of ROWS with MODEL, a file from `fit` or `adapt`.

    A file from `fit` alone gives the population prediction. Columns have the same names as in
    `fit`; the target and measured features may be missing.

    \b
    Examples:
        ehrmeta predict patients.ehrmeta next_visits.csv --out predictions.csv
        ehrmeta predict hdl.ehrmeta next_visits.csv --support new_visits.csv --out predictions.csv
    """
    loaded = load(model)
    patients = loaded if isinstance(loaded, Adapted) else loaded.unadapted()
    schema = schema_of(patients.model, model)
    task, clock = str(schema.task), schema.time
    if support is not None:
        visits = tables.read_table(support, schema, on_constant_outcome="allow")
        groups = groups_of(pd.Series(visits.groups, name=task), patients, joining=True)
        add = loaded.update if isinstance(loaded, Adapted) else loaded.adapt
        patients = add(visits.X, visits.y, groups=groups, time=visits.time)

    frame, _ = tables.read_rows(rows, schema)
    needed = (*([task] if patients.labels_ is not None else []), *([clock.name] if clock else []))
    require_columns(frame, needed)
    ids = [name for name in dict.fromkeys((task, *needed)) if name in frame]
    clashes = [name for name in ids if name in ("prediction", "lower", "upper")]
    if clashes:
        raise SchemaError(
            f"column(s) {clashes} of '{rows}' would be overwritten by the predictions. Rename "
            "them, and fit again with the new names."
        )
    require_columns(frame, (f.name for f in schema.features if f.role != "measured"))
    query: dict[str, Any] = {"X": frame.reindex(columns=list(schema.names)), "time": None}
    query["groups"] = groups_of(frame[task], patients) if task in needed else None
    query["new_groups"] = new_groups
    if clock is not None:
        unit, origin = clock.unit, clock.origin
        query["time"] = to_time(frame[clock.name], unit=unit, origin=origin, name=clock.name)
    interval = patients.predict_interval(**query, confidence_level=confidence_level)
    predictions = frame[ids].assign(
        prediction=patients.predict(**query), lower=interval[:, 0], upper=interval[:, 1]
    )
    write_frame(predictions, out)
    source = "the population"
    if task in needed:
        codes = pd.Index(patients.labels_).get_indexer(pd.Index(query["groups"]))
        known = codes[codes >= 0]
        source = f"{len(set(known)):,} adapted tasks"
        if len(known) < len(codes):
            instead = "the population" if new_groups == "population" else "no prediction"
            source += f" ({len(codes) - len(known):,} rows of other tasks: {instead})"
    click.echo(f"predicted {len(predictions):,} rows from {source}, saved {out}")


@click.command()
@click.argument("model")
@click.argument("table")
@tables.scoring_options("1,3,5")
@click.option(
    "--baselines/--no-baselines", default=None, help="Default: if there is data to fit them on."
)
def evaluate(
    model: str, table: str, shots: tuple[int, ...], baselines: bool | None, **others: Any
) -> None:
    """Score MODEL on the patients of TABLE after 1, 3, 5 values of each.

    None of them may have been in training: pass another table, or hold patients out.

    \b
    Examples:
        ehrmeta evaluate hdl.ehrmeta test.csv --train train.csv
        ehrmeta evaluate bili.ehrmeta pbcseq --hold-out 0.2
    """
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
    outcome = schema_of(fitted.model_, model).outcome
    click.echo(k_shot_table(curve, reference="ehrmeta", unit=outcome.unit if outcome else ""))
    if len(models) > 1:
        click.echo("ranges: 95 % interval of (row - ehrmeta), paired over patients; * excludes 0.")


def regressor(algorithm: str, options: Mapping[str, Any]) -> MetaRegressor:
    """Unfitted model with the values of `training_options`."""
    given = {name: options[name] for name in ("likelihood", "max_steps") if options[name]}
    model = MetaRegressor(ALGORITHMS[algorithm](), outcome_transform=options["transform"])
    return model.set_params(random_state=options["seed"], **given)


def describe(table: Table) -> str:
    """Text of a table, with the remedies of its findings as command-line options."""
    return repr(dataclasses.replace(table, findings=tuple(map(tables.reworded, table.findings))))


def schema_of(model: TaskModel, path: str) -> Schema:
    """Schema that a model was fitted on, without treatment and outcome time."""
    if model.schema is None or model.schema.task is None or model.schema.outcome is None:
        raise SchemaError(
            f"the model in '{path}' does not know its columns by name. Fit it on the command line, "
            "or in Python on the X of a Table."
        )
    return dataclasses.replace(model.schema, treatment=None, outcome_time=None)


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
    baselines: bool = True,
) -> tuple[Table, dict[str, Any]]:
    """The test patients in `table`, and baselines fitted on other patients if there are any.

    These are in the table `train`, or in `table` if only a share `hold_out` of it, which was
    excluded when the model was fitted, is for testing.
    """
    schema = schema_of(fitted.model_, path)
    test = tables.read_table(table, schema, drop_missing_target=True)
    others = None if train is None else tables.read_table(train, schema, drop_missing_target=True)
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
    """Store in a model file which share of how many tasks was excluded from training."""
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


def groups_of(ids: pd.Series, patients: Adapted, *, joining: bool = False) -> Any:
    """Convert task ids, text in a CSV, to the type of the adapted tasks' labels, (row,).

    Numbers are compared exactly, never as floats. An unknown id becomes a number that no adapted
    task has, or keeps its value if it is `joining` them.
    """
    labels = patients.labels_
    text = ids.astype("str").where(ids.notna(), None)
    if labels is None:
        return ids if joining else text
    if labels.dtype == object:
        return text
    if labels.dtype.kind == "M":
        return pd.to_datetime(ids, errors="coerce")
    whole = labels.dtype.kind in "iub"
    codes, texts = pd.factorize(text)
    values = [_number(one) for one in texts]
    wrong = [
        i
        for i, value in enumerate(values)
        if value is None or (joining and whole and value != value.to_integral_value())
    ]
    bad = (codes < 0) | np.isin(codes, wrong)
    if bad.any():
        raise DataError(
            f"column '{ids.name}': {int(bad.sum()):,} of {len(ids):,} rows have no valid number, "
            "but the adapted tasks have numbers. Correct those rows."
        )
    dtype = np.dtype(np.int64) if labels.dtype.kind in "ib" else labels.dtype
    if joining:
        return np.array([int(Decimal(one)) if whole else float(one) for one in texts], dtype)[codes]
    known = {_number(str(label)): label for label in labels.tolist()}
    unused = next(n for n in range(len(known) + 1) if Decimal(n) not in known)
    return np.array([known.get(value, unused) for value in values], dtype)[codes]


def _number(text: str) -> Decimal | None:
    """The exact number in a text, if it is one."""
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
