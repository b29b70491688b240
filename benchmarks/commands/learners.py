"""Suites of ``python -m benchmarks``: the learners beside each other, and their tuning."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.commands.options import only, seed_option, suite_options, workers_option, write
from benchmarks.few_shot.digits import LEARNERS, digits_table, run_digits
from benchmarks.few_shot.sinusoid import METHODS, run_sinusoid, sinusoid_table
from benchmarks.guide import learner_tables, put_tables
from benchmarks.suite.cache import Cache
from benchmarks.tuning import run_tuning, tuning_table

__all__ = ["digits", "sinusoid", "table", "tuning"]


@click.command()
@suite_options
@seed_option
@workers_option
@only("--method", "names", METHODS, "learner")
def sinusoid(
    quick: bool,
    json_file: str | None,
    cache: Path | None,
    seed: int,
    workers: int,
    names: tuple[str, ...],
) -> None:
    """Compare all learners in few-shot regression on sinusoids.

    The field's protocol: 5, 10 and 20 shots, 2 x 40 ReLU units, without noise and with. --quick
    trains a tenth of the steps, so its errors are higher.

    \b
    Example:
        python -m benchmarks sinusoid --quick --workers 2
    """
    if quick:
        click.echo("--quick: a tenth of the training steps")
    records = run_sinusoid(
        click.echo,
        quick=quick,
        cache=Cache(cache),
        methods={name: METHODS[name] for name in names or METHODS},
        workers=workers,
        seed=seed,
    )
    click.echo("\n" + sinusoid_table(records))
    write(json_file, records)


@click.command()
@suite_options
@seed_option
@workers_option
@only("--method", "names", LEARNERS, "learner")
def digits(
    quick: bool,
    json_file: str | None,
    cache: Path | None,
    seed: int,
    workers: int,
    names: tuple[str, ...],
) -> None:
    """Compare class learners on images: digits never seen in training.

    Five-way tasks from 1 and 5 images of each class, through a small convolutional network, beside
    the nearest centroid on pixels. --quick takes two of the five splits.

    \b
    Example:
        python -m benchmarks digits --quick
    """
    if quick:
        click.echo("--quick: two of the five splits, a quarter of the test tasks")
    records = run_digits(
        click.echo,
        quick=quick,
        cache=Cache(cache),
        learners={name: LEARNERS[name] for name in names or LEARNERS},
        workers=workers,
        seed=seed,
    )
    click.echo("\n" + digits_table(records))
    write(json_file, records)


@click.command()
@suite_options
@seed_option
@workers_option
def tuning(quick: bool, json_file: str | None, cache: Path | None, seed: int, workers: int) -> None:
    """Tune MAML on real patients: what it gains, and what giving up early saves.

    A study of 30 trials on training patients, with and without giving up; then its best setting and
    the defaults are trained alike and compared on other patients. --quick runs three short trials.

    \b
    Example:
        python -m benchmarks tuning --cache runs
    """
    records = run_tuning(click.echo, quick=quick, cache=Cache(cache), workers=workers, seed=seed)
    click.echo("\n" + tuning_table(records))
    write(json_file, records)


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--into",
    "page",
    metavar="PAGE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Put them between the marks of this page.",
)
def table(files: tuple[str, ...], page: Path | None) -> None:
    """Show the tables of saved records of sinusoid and digits.

    \b
    Example:
        python -m benchmarks table docs/sinusoid.json docs/digits.json --into docs/which_learner.md
    """
    tables = learner_tables(files)
    if page is None:
        click.echo(tables)
        return
    page.write_text(put_tables(page.read_text(encoding="utf-8"), tables), encoding="utf-8")
    click.echo(f"saved {page}")
