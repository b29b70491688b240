"""Training of a model on a table."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import click

from ehrmeta.algorithms import ALGORITHMS
from ehrmeta.cli.work import tables
from ehrmeta.cli.work.evaluating import mark_held_out
from ehrmeta.data import Table
from ehrmeta.estimators import MetaRegressor


def fit_model(table: str, algorithm: str, hold_out: float | None, out: str, **options: Any) -> None:
    """Train a model, save it and print how long it took."""
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


def regressor(algorithm: str, options: Mapping[str, Any]) -> MetaRegressor:
    """Unfitted model with the values of `training_options`."""
    given = {name: options[name] for name in ("likelihood", "max_steps") if options[name]}
    model = MetaRegressor(ALGORITHMS[algorithm](), outcome_transform=options["transform"])
    return model.set_params(random_state=options["seed"], **given)


def describe(table: Table) -> str:
    """Text of a table, with the remedies of its findings as command-line options."""
    return repr(dataclasses.replace(table, findings=tuple(map(tables.reworded, table.findings))))
