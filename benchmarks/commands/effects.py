"""Suites of ``python -m benchmarks``: effects of treatment."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.commands.options import only, suite_options, workers_option, write
from benchmarks.suite.cache import Cache
from benchmarks.suite.record import Record
from benchmarks.treatment.dosing import dosing_table, run_dosing
from benchmarks.treatment.methods import METHODS as EFFECT_METHODS
from benchmarks.treatment.n_of_1 import n_of_1_table, run_n_of_1
from benchmarks.treatment.run import PARTS, run_treatment
from benchmarks.treatment.table import treatment_tables
from benchmarks.treatment.targets import targets_table

__all__ = ["treatment"]


@click.command()
@suite_options
@workers_option
@only("--part", "parts", [*PARTS, "dosing", "n-of-1"], "part")
@only("--method", "names", EFFECT_METHODS, "method of effects")
def treatment(
    quick: bool,
    json_file: str | None,
    cache: Path | None,
    workers: int,
    parts: tuple[str, ...],
    names: tuple[str, ...],
) -> None:
    """Compare learners of treatment effects: simulations, new sites, trials, doses, patients.

    Zero and constant effects, the S-, T-, X-, DR- and R-learner with ridge and boosting, EconML's
    causal forest where it is installed; doses that bring concentrations into a range, beside
    pharmacometric MAP; effects of treatment periods with carry-over, doses in random order or
    following the outcome. The last table sets what was found beside what was wanted.
    --quick runs a small case of each part.

    \b
    Example:
        python -m benchmarks treatment --part sites --cache runs
    """
    kept, chosen = Cache(cache), parts or (*PARTS, "dosing", "n-of-1")
    between = [part for part in chosen if part in PARTS]
    effects = (
        run_treatment(
            click.echo, quick=quick, cache=kept, parts=between, methods=names, workers=workers
        )
        if between
        else []
    )
    dosing: list[Record] = []
    within: list[Record] = []
    if "dosing" in chosen:
        dosing = run_dosing(click.echo, quick=quick, cache=kept, workers=workers)
    if "n-of-1" in chosen:
        within = run_n_of_1(click.echo, quick=quick, cache=kept, workers=workers)
    for records, shown in (
        (effects, treatment_tables),
        (dosing, dosing_table),
        (within, n_of_1_table),
    ):
        if records:
            click.echo("\n" + shown(records))
    if targets := targets_table(effects + dosing + within):
        click.echo("\n" + targets)
    write(json_file, effects + dosing + within)
