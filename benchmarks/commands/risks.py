"""Suites of ``python -m benchmarks``: risks, at new hospitals and after first visits."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.cohorts.data import COHORT_DATA
from benchmarks.cohorts.methods import COHORT_METHODS
from benchmarks.cohorts.run import run_cohorts
from benchmarks.cohorts.table import cohorts_records, cohorts_tables, cohorts_verdict
from benchmarks.cohorts.targets import cohorts_targets, target_table
from benchmarks.commands.options import only, suite_options, workers_option, write
from benchmarks.landmark.cell import FULL as FULL_LANDMARK
from benchmarks.landmark.cell import QUICK as QUICK_LANDMARK
from benchmarks.landmark.data import COHORTS
from benchmarks.landmark.methods import METHODS as RISK_METHODS
from benchmarks.landmark.run import run_landmark
from benchmarks.landmark.table import (
    cells_of,
    landmark_notes,
    landmark_records,
    landmark_summary,
    landmark_tables,
)

__all__ = ["cohorts", "landmark"]


@click.command()
@suite_options
@workers_option
@only("--data-set", "data_sets", COHORT_DATA, "data set")
@only("--method", "names", COHORT_METHODS["risk"] | COHORT_METHODS["dose"], "method")
def cohorts(
    quick: bool,
    json_file: str | None,
    cache: Path | None,
    workers: int,
    data_sets: tuple[str, ...],
    names: tuple[str, ...],
) -> None:
    """Predict risk and dose at new hospitals, from none to 100 of their patients.

    Folds of sites, at most five; beside pooled models, what hospitals do to update them, the
    mixed-effects logistic, and dosing equations. --quick runs one fold and one draw of supports.

    \b
    Example:
        python -m benchmarks cohorts --data-set heart --quick
    """
    results = run_cohorts(
        click.echo,
        quick=quick,
        folder=cache,
        data_sets=data_sets,
        methods=names,
        workers=workers,
    )
    for table in cohorts_tables(results):
        click.echo("\n" + table.rstrip())
    click.echo("\n" + cohorts_verdict(results))
    click.echo("\n" + target_table(cohorts_targets(results)))
    write(json_file, cohorts_records(results))


@click.command()
@suite_options
@workers_option
@only("--cohort", "cohorts", COHORTS, "cohort")
@only("--method", "names", RISK_METHODS, "method")
def landmark(
    quick: bool,
    json_file: str | None,
    cache: Path | None,
    workers: int,
    cohorts: tuple[str, ...],
    names: tuple[str, ...],
) -> None:
    """Predict events after a patient's first visits: diabetes, heart attack, stroke, death.

    The adapted forecaster's posterior of the values before the landmark in a hazard model, beside
    Cox, logistic and boosted models on last values and on a mixed model's BLUP; death competes.
    --quick runs one fold, with short training on few patients.

    \b
    Example:
        python -m benchmarks landmark --cohort pbcseq --quick
    """
    found = run_landmark(
        click.echo,
        quick=quick,
        folder=cache,
        cohorts=cohorts,
        methods=names,
        workers=workers,
    )
    cells = cells_of(found)
    click.echo("\n" + landmark_notes(QUICK_LANDMARK if quick else FULL_LANDMARK))
    for table in landmark_tables(cells):
        click.echo("\n" + table.rstrip())
    click.echo("\n" + landmark_summary(cells))
    write(json_file, landmark_records(cells))
