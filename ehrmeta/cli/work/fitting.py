"""Training of a model on a table."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import click

from ehrmeta.algorithms import ALGORITHMS
from ehrmeta.cli.work import tables
from ehrmeta.cli.work.checking import findings_of
from ehrmeta.cli.work.evaluating import mark_held_out
from ehrmeta.cli.work.running import stage
from ehrmeta.data import Table
from ehrmeta.estimators import MetaClassifier, MetaRegressor


def fit_model(
    table: str, algorithm: str | None, hold_out: float | None, out: str, **options: Any
) -> None:
    """Train a model, save it and print what was found and how long it took."""
    rows = tables.read_rows(table, classes="detect", **options)
    model = new_model(algorithm, options, of_classes=rows.classes is not None)
    visits = tables.table_of(rows, table, **options)
    n_tasks = visits.n_tasks
    if hold_out is not None:
        visits, _ = visits.split(hold_out, random_state=0)
    click.echo(describe(visits))
    if not tables.is_bundled(table):
        said = tuple(map(tables.in_command_words, visits.findings))
        for line in findings_of(rows, table, **options):
            if not line.endswith(said):
                click.echo(line)
    with stage("training"):
        model.fit(visits.X, visits.y, groups=visits.groups, time=visits.time)
    model.save(out)
    if hold_out is not None:
        mark_held_out(out, hold_out, n_tasks)
    summary = "too few tasks for training steps: mixed model"
    if model.history_:
        last = model.history_[-1]
        summary = f"trained {last['step']:,.0f} steps in {last['seconds']:.0f} s"
    click.echo(f"{summary}, saved {out}")


def new_model(
    algorithm: str | None, options: Mapping[str, Any], *, of_classes: bool = False
) -> MetaRegressor | MetaClassifier:
    """Unfitted model with the values of `training_options`."""
    given = {name: options[name] for name in ("likelihood", "max_steps") if options[name]}
    learner = None if algorithm is None else ALGORITHMS[algorithm]()
    if not of_classes:
        learner = learner or ALGORITHMS["deep-mixed-effects"]()
        model = MetaRegressor(learner, outcome_transform=options["transform"])
        return model.set_params(random_state=options["seed"], **given)
    for_numbers = [name for name in ("likelihood", "transform") if options[name]]
    if for_numbers:
        raise click.UsageError(f"--{for_numbers[0]} is for a target of numbers: leave it out.")
    return MetaClassifier(learner).set_params(random_state=options["seed"], **given)


def describe(table: Table) -> str:
    """Text of a table, with the remedies of its findings as command-line options."""
    return repr(dataclasses.replace(table, findings=tuple(map(tables.reworded, table.findings))))
