"""Suites of ``python -m benchmarks``: forecasts of patients, and their intervals."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.commands.options import only, seed_option, suite_options, workers_option, write
from benchmarks.conformal.run import FULL as ALL_SPLITS
from benchmarks.conformal.run import MODELS as INTERVAL_MODELS
from benchmarks.conformal.run import QUICK as QUICK_SPLITS
from benchmarks.conformal.run import run_conformal
from benchmarks.conformal.table import conformal_table, targets_table
from benchmarks.pacoh.run import pacoh_records, pacoh_table, run_pacoh
from benchmarks.patients.cell import FULL, QUICK
from benchmarks.patients.data import DATA_SETS
from benchmarks.patients.methods import METHODS as FORECASTERS
from benchmarks.patients.run import run_patients
from benchmarks.patients.table import (
    patients_notes,
    patients_records,
    patients_summary,
    patients_tables,
)
from benchmarks.suite.cache import Cache

__all__ = ["conformal", "pacoh", "patients"]


@click.command()
@suite_options
@workers_option
@only("--data-set", "data_sets", DATA_SETS, "data set")
@only("--method", "names", FORECASTERS, "method")
def patients(
    quick: bool,
    json_file: str | None,
    cache: Path | None,
    workers: int,
    data_sets: tuple[str, ...],
    names: tuple[str, ...],
) -> None:
    """Forecast real patients: the learners beside mixed models and boosting.

    Five folds by patient; the first 0 to 10 rows of a patient are seen, the later ones predicted.
    Peers choose their settings on training patients, ours run at their defaults. --quick runs one
    fold of a few patients, with short training and no choice of settings.

    \b
    Example:
        python -m benchmarks patients --data-set pbcseq-bilirubin --cache runs
    """
    results = run_patients(
        click.echo,
        quick=quick,
        folder=cache,
        data_sets=data_sets,
        methods=names,
        workers=workers,
    )
    click.echo("\n" + patients_notes(QUICK if quick else FULL))
    for table in patients_tables(results):
        click.echo("\n" + table.rstrip())
    click.echo("\n" + patients_summary(results))
    write(json_file, patients_records(results))


@click.command()
@click.option(
    "--data",
    metavar="DIR",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of the challenge's files: set-a/*.txt, or set_a.parquet.",
)
@suite_options
@workers_option
def pacoh(data: Path, quick: bool, json_file: str | None, cache: Path | None, workers: int) -> None:
    """Forecast the second day of an ICU stay from its first (PhysioNet 2012).

    The protocol of PACOH: 100 stays to train on, 500 to test, on Glasgow coma score and
    haematocrit; the published split and five random ones. --quick runs the published split only,
    with short training.

    \b
    Example:
        python -m benchmarks pacoh --data physionet2012 --quick
    """
    found = run_pacoh(data, click.echo, quick=quick, folder=cache, workers=workers)
    click.echo("\n" + pacoh_table(found))
    write(json_file, pacoh_records(found))


@click.command()
@suite_options
@seed_option
@workers_option
@only("--model", "names", INTERVAL_MODELS, "model")
def conformal(
    quick: bool,
    json_file: str | None,
    cache: Path | None,
    seed: int,
    workers: int,
    names: tuple[str, ...],
) -> None:
    """Count how often calibrated intervals hold, by sex, age and k.

    Each model is fitted once; patients it has not seen are split 20 times into those to calibrate
    on and those to test. Targets are printed beside the default's figures. --quick takes two splits
    of 600 patients, so its shares are rough.

    \b
    Example:
        python -m benchmarks conformal --model 'mixed + OU'
    """
    records = run_conformal(
        click.echo,
        plan=QUICK_SPLITS if quick else ALL_SPLITS,
        cache=Cache(cache),
        models=names or tuple(INTERVAL_MODELS),
        workers=workers,
        seed=seed,
    )
    click.echo("\n" + conformal_table(records))
    if targets := targets_table(records):
        click.echo("\n" + targets)
        if quick:
            click.echo("\nSo few patients cannot judge them: run without --quick.")
    write(json_file, records)
