"""Problems of a table, and training of a model on it."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click
import numpy as np
import pandas as pd

from ehrmeta.algorithms import ALGORITHMS
from ehrmeta.cli import tables
from ehrmeta.cli.evaluate import mark_held_out
from ehrmeta.cli.messages import in_command_words, printable, reworded, stage
from ehrmeta.data import Finding, Table, check_table
from ehrmeta.data.leaks import n_gross_errors
from ehrmeta.errors import Remedy
from ehrmeta.estimators import MetaClassifier, MetaRegressor

_ALIKE = 3  # more findings of one kind are one line
_NAMED = 3  # columns named in it


def check_file(table: str, write_schema: str | None, strict: bool, **options: Any) -> None:
    """Print the schema of a table and its findings; status 1 if it cannot be used."""
    rows = tables.read_rows(table, classes="detect", **options)
    schema = rows.schema
    click.echo(printable(f"{_sizes(rows)}\n{schema!r}\n"))
    findings = [*check_table(rows.frame, schema), *_gross_errors(rows)]
    lines = list(_lines(findings, table, **options))
    click.echo("\n".join(map(printable, lines)) or "nothing found")
    if write_schema is not None:
        schema.to_toml(write_schema)
        click.echo(f"\nsaved {write_schema}")
    is_unusable = any(_level(finding) == "error" for finding in findings)
    if not is_unusable:  # raises what only the whole table shows
        is_unusable = tables.table_of(rows, table, **options).n_tasks < 2
    if is_unusable or (strict and lines):
        raise SystemExit(1)


def _lines(findings: Iterable[Finding], source: str, **options: Any) -> Iterator[str]:
    """Findings of a check as lines of text; many of one kind are merged into one line."""
    alike: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        key = _level(finding), finding.what, str(finding.remedy)
        alike.setdefault(key, []).append(finding)
    for (level, what, _), same in alike.items():
        if len(same) > _ALIKE:
            names = ", ".join(f"'{finding.column}'" for finding in same[:_NAMED])
            remedy = in_command_words(same[0].remedy)
            columns = f"{len(same):,} columns ({names} and {len(same) - _NAMED:,} others)"
            yield f"{level:<7}  {columns}: {what}. {remedy}"
        else:
            yield from (f"{level:<7}  {_text(one, source, options)}" for one in same)


def _gross_errors(rows: tables.Rows) -> Iterator[Finding]:
    """Finding for gross errors in a numeric target, of which `fit` warns as well."""
    outcome = rows.schema.outcome
    if rows.classes is None and outcome is not None and outcome.name in rows.frame:
        y = pd.to_numeric(rows.frame[outcome.name], errors="coerce").dropna()
        low, high = outcome.low, outcome.high
        y = y[y.between(-np.inf if low is None else low, np.inf if high is None else high)]
        count = n_gross_errors(y.to_numpy(np.float64)) if len(y) else 0
        if count:
            what = "values far from all others, probably gross errors"
            yield Finding(what, outcome.name, count, Remedy("gross-errors", ""))


def _level(finding: Finding) -> str:
    """Level of a finding for `fit`.

    Rows without a target are only a warning, as commands drop them; single rows are an error.
    """
    kind = _kind(finding)
    if kind in ("wide-table", "rows-per-patient"):
        return "error"
    return "warning" if kind == "drop-missing" else finding.level


def _kind(finding: Finding) -> str:
    return finding.remedy.kind if isinstance(finding.remedy, Remedy) else ""


def _sizes(rows: tables.Rows) -> str:
    """Numbers of rows and tasks, as text."""
    frame, task = rows.frame, rows.schema.task
    if task is None or task not in frame:
        return f"{len(frame):,} rows"
    n_tasks = frame[task].nunique()
    return f"{len(frame):,} rows of {n_tasks:,} {rows.schema.task_kind}s"


def _text(finding: Finding, source: str, options: dict[str, Any]) -> str:
    """A finding in words of the command line; errors name the first line."""
    if finding.error is None:
        return in_command_words(finding)
    parts = (tables.with_lines(part, source, **options) for part in finding.error.args)
    return " ".join(map(in_command_words, parts))


def fit_model(
    table: str, algorithm: str | None, hold_out: float | None, out: str, **options: Any
) -> None:
    """Train a model, save it, and print findings of the table and the time taken."""
    rows = tables.read_rows(table, classes="detect", **options)
    model = new_model(algorithm, options, of_classes=rows.classes is not None)
    visits = tables.table_of(rows, table, **options)
    n_tasks = visits.n_tasks
    if hold_out is not None:
        visits, _ = visits.split(hold_out, random_state=0)
    click.echo(describe(visits))
    if not tables.is_bundled(table):
        findings = check_table(rows.frame, rows.schema)
        new = (f for f in findings if f not in visits.findings and _kind(f) != "drop-missing")
        for line in _lines(new, table, **options):
            click.echo(printable(line))
    with tables.in_lines(table, visits.X.index, **options), stage("training"):
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
        scale: Any = options["transform"] or "auto"
        model = MetaRegressor(learner, outcome_transform=None if scale == "none" else scale)
        return model.set_params(random_state=options["seed"], **given)
    for_numbers = [name for name in ("likelihood", "transform") if options[name]]
    if for_numbers:
        raise click.UsageError(f"--{for_numbers[0]} is for a target of numbers: leave it out.")
    return MetaClassifier(learner).set_params(random_state=options["seed"], **given)


def describe(table: Table) -> str:
    """Text of a table, with the remedies of its findings as command-line options."""
    return repr(dataclasses.replace(table, findings=tuple(map(reworded, table.findings))))
