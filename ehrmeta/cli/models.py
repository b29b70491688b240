"""``ehrmeta fit | adapt | predict | evaluate``: a model from its training to its predictions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_args

import click
import pandas as pd

from ehrmeta.algorithms import ALGORITHMS
from ehrmeta.cli.demo import opponents
from ehrmeta.cli.tables import (
    check_held_out,
    features_of,
    groups_of,
    joining_ids,
    mark_held_out,
    numbers,
    read_rows,
    read_support,
    read_table,
    read_visits,
    schema_of,
    table_options,
    text_columns,
    times_of,
    writable,
)
from ehrmeta.data.columns import require_columns, write_frame
from ehrmeta.data.schema import Transform
from ehrmeta.errors import SchemaError
from ehrmeta.estimators import Adapted, MetaRegressor
from ehrmeta.estimators.adapted import NewGroups
from ehrmeta.estimators.files import load_file
from ehrmeta.evaluation import k_shot_curve
from ehrmeta.nn.likelihoods import LIKELIHOODS
from ehrmeta.report import k_shot_table

__all__ = ["adapt", "evaluate", "fit", "predict"]

SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.command()
@click.argument("table")
@table_options
@click.option("--transform", type=click.Choice(get_args(Transform)), help="Learn on this scale.")
@click.option(
    "--algorithm",
    type=click.Choice(list(ALGORITHMS)),
    default="deep-mixed-effects",
    show_default=True,
)
@click.option("--likelihood", type=click.Choice(list(LIKELIHOODS)))
@click.option("--max-steps", type=click.IntRange(1), help="Training steps at most.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--hold-out", type=SHARE, help="Share of patients to leave out, for `evaluate --hold-out`."
)
@click.option("--out", required=True, callback=writable, help="Model file to write.")
def fit(
    table: str,
    transform: Transform | None,
    algorithm: str,
    likelihood: str | None,
    max_steps: int | None,
    seed: int,
    hold_out: float | None,
    out: str,
    **roles: Any,
) -> None:
    """Meta-train on the visits in TABLE, a file or the name of a bundled data set.

    \b
    Examples:
        ehrmeta fit visits.csv --task patient --time day --target hdl --out hdl.ehrmeta
        ehrmeta fit pbcseq --likelihood student_t --hold-out 0.2 --out bili.ehrmeta
    """
    visits = read_visits(table, **roles)
    n_tasks = visits.n_tasks
    if hold_out is not None:
        visits, _ = visits.split(hold_out, random_state=0)
    click.echo(visits)
    model = MetaRegressor(ALGORITHMS[algorithm](), outcome_transform=transform, random_state=seed)
    settings = {"likelihood": likelihood, "max_steps": max_steps}
    model.set_params(**{name: value for name, value in settings.items() if value is not None})
    model.fit(visits.X, visits.y, groups=visits.groups, time=visits.time)
    model.save(out)
    if hold_out is not None:
        mark_held_out(out, hold_out, n_tasks)
    done = "kept the mixed model: too few tasks to train on"
    if model.history_:
        last = model.history_[-1]
        done = f"trained {last['step']:,.0f} steps in {last['seconds']:.0f} s"
    click.echo(f"{done}, saved {out}")


@click.command()
@click.argument("model")
@click.argument("visits")
@click.option("--out", required=True, callback=writable, help="File to write: patient data.")
def adapt(model: str, visits: str, out: str) -> None:
    """Adapt MODEL to new patients from the VISITS they have had so far.

    Columns have the names they had in `fit`.

    \b
    Example:
        ehrmeta adapt hdl.ehrmeta new_visits.csv --out patients.ehrmeta
    """
    fitted = MetaRegressor.load(model)
    support = read_support(visits, schema_of(fitted, model))
    adapted = fitted.adapt(support.X, support.y, groups=support.groups, time=support.time)
    umask = os.umask(0o077)  # for the owner's eyes alone, from the first byte
    try:
        adapted.save(out)
    finally:
        os.umask(umask)
    Path(out).chmod(0o600)  # a file that was there keeps its permissions in save
    click.echo(f"{adapted}, saved {out} (patient data: keep it as you keep the visits)")


@click.command()
@click.argument("model")
@click.argument("rows")
@click.option("--support", metavar="VISITS", help="Values seen so far; adapts before predicting.")
@click.option("--new-groups", type=click.Choice(get_args(NewGroups)), default="error")
@click.option("--confidence-level", default=0.9, show_default=True, help="Of lower and upper.")
@click.option("--out", required=True, callback=writable, help="Table to write: .csv or .parquet.")
def predict(
    model: str,
    rows: str,
    support: str | None,
    new_groups: NewGroups,
    confidence_level: float,
    out: str,
) -> None:
    """Predict every row of ROWS with MODEL, a file of `fit` or of `adapt`.

    A file of `fit` alone gives the population prediction. Columns have the names they had in
    `fit`; the target and features that were declared measured may be absent.

    \b
    Examples:
        ehrmeta predict patients.ehrmeta next_visits.csv --out predictions.csv
        ehrmeta predict hdl.ehrmeta next_visits.csv --support new_visits.csv --out predictions.csv
    """
    found = load_file(model)
    patients = found if isinstance(found, Adapted) else found.unadapted()
    schema = schema_of(patients.model, model)
    if support is not None:
        seen = read_support(support, schema)
        joined = joining_ids(seen.groups, str(schema.task), patients)
        add = found.update if isinstance(found, Adapted) else found.adapt
        patients = add(seen.X, seen.y, groups=joined, time=seen.time)

    task, clock = str(schema.task), schema.time
    needed = (*([task] if patients.labels_ is not None else []), *([clock.name] if clock else []))
    frame = read_rows(rows, text=text_columns(schema))
    require_columns(frame, needed)
    ids = [name for name in dict.fromkeys((task, *needed)) if name in frame]
    taken = [name for name in ids if name in ("prediction", "lower", "upper")]
    if taken:
        raise SchemaError(
            f"column(s) {taken} of '{rows}' would be overwritten by the predictions. Rename them, "
            "and fit again under the new name."
        )
    asked: dict[str, Any] = {
        "X": features_of(frame, schema),
        "groups": groups_of(frame[task], patients) if task in needed else None,
        "time": times_of(frame, clock),
        "new_groups": new_groups,
    }
    interval = patients.predict_interval(**asked, confidence_level=confidence_level)
    predictions = frame[ids].assign(
        prediction=patients.predict(**asked), lower=interval[:, 0], upper=interval[:, 1]
    )
    write_frame(predictions, out)
    who = "the population"
    if task in needed:
        codes = pd.Index(patients.labels_).get_indexer(pd.Index(asked["groups"]))
        known = codes[codes >= 0]
        who = f"{len(set(known)):,} adapted tasks"
        if len(known) < len(codes):
            got = "the population" if new_groups == "population" else "no prediction"
            who += f" ({len(codes) - len(known):,} rows of other tasks: {got})"
    click.echo(f"predicted {len(predictions):,} rows from {who}, saved {out}")


@click.command()
@click.argument("model")
@click.argument("table")
@click.option(
    "--shots",
    metavar="N,N",
    callback=numbers,
    default="1,3,5",
    show_default=True,
    help="Values k.",
)
@click.option("--train", metavar="TABLE", help="Table to fit the baselines on.")
@click.option(
    "--baselines/--no-baselines", default=None, help="Default: where there is data to fit them on."
)
@click.option(
    "--hold-out",
    type=SHARE,
    help="Score the patients that `fit --hold-out` left out; fit the baselines on the others.",
)
def evaluate(
    model: str,
    table: str,
    shots: tuple[int, ...],
    train: str | None,
    baselines: bool | None,
    hold_out: float | None,
) -> None:
    """Score MODEL on the patients of TABLE after 1, 3, 5 values of each.

    None of them should have been in training: pass another table, or hold patients out.

    \b
    Examples:
        ehrmeta evaluate hdl.ehrmeta test.csv --train train.csv
        ehrmeta evaluate bili.ehrmeta pbcseq --hold-out 0.2
    """
    fitted = MetaRegressor.load(model)
    schema = schema_of(fitted, model)
    test = read_table(table, schema)
    seen = None if train is None else read_table(train, schema)
    if hold_out is not None:
        check_held_out(model, hold_out, test.n_tasks)
        rest, test = test.split(hold_out, random_state=0)
        seen = rest if seen is None else seen
    if baselines and seen is None:
        raise click.UsageError("baselines need data to be fitted on: pass --train or --hold-out.")
    models: dict[str, Any] = {"ehrmeta": fitted}
    if seen is not None and baselines is not False:
        rivals = opponents(outcome_transform=fitted.outcome_transform)
        for rival in rivals.values():
            rival.fit(seen.X, seen.y, groups=seen.groups, time=seen.time)
        models = rivals | models
    curve = k_shot_curve(
        models, test.X, test.y, groups=test.groups, time=test.time, shots=shots, reference="ehrmeta"
    )
    unit = schema.outcome.unit if schema.outcome else ""
    click.echo(k_shot_table(curve, reference="ehrmeta", unit=unit))
    if len(models) > 1:
        click.echo("ranges: 95 % interval of (row - ehrmeta), paired over patients; * excludes 0.")
