"""Suites on time, memory and faults."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from benchmarks.commands.options import (
    json_option,
    quick_option,
    seed_option,
    suite_options,
    write,
)
from benchmarks.reliability.run import FULL as ALL_FAULTS
from benchmarks.reliability.run import QUICK as QUICK_FAULTS
from benchmarks.reliability.run import reliability_table, run_reliability
from benchmarks.speed.memory import SIZES, measure_training_memory, memory_table
from benchmarks.speed.run import run_speed
from benchmarks.suite.cache import Cache
from benchmarks.suite.record import Record

__all__ = ["memory", "reliability", "speed"]


@click.command()
@suite_options
@seed_option
@click.option(
    "--method",
    "methods",
    multiple=True,
    help="Only this method of the meta-gradient; may be repeated.",
)
@click.option("--device", default="cpu", show_default=True, help="Of the meta-gradients.")
def speed(
    quick: bool,
    json_file: str | None,
    cache: Path | None,
    seed: int,
    methods: tuple[str, ...],
    device: str,
) -> None:
    """Time meta-gradients, adapting, training steps; count memory.

    Every method runs in the same process in turn, after a check that all compute the same
    gradient; numbers are medians, and ratios are taken within a round.

    \b
    Example:
        python -m benchmarks speed --quick
    """
    records = run_speed(
        click.echo,
        quick=quick,
        cache=Cache(cache),
        methods=methods,
        device=device,
        seed=seed,
    )
    write(json_file, records)


@click.command()
@suite_options
@seed_option
def memory(quick: bool, json_file: str | None, cache: Path | None, seed: int) -> None:
    """Count the memory that training on 10,000 to 1,000,000 patients takes.

    \b
    Example:
        python -m benchmarks memory --json memory.json
    """
    sizes, max_steps = ((1_000, 10_000), 20) if quick else (SIZES, 300)
    records: list[Record] = []
    for size in sizes:
        settings = {
            "cell": f"memory {size}",
            "suite": "memory",
            "max_steps": max_steps,
            "seed": seed,
        }
        records += Cache(cache).cell(
            settings, partial(measure_training_memory, [size], max_steps=max_steps, seed=seed)
        )
    click.echo(memory_table(records))
    write(json_file, records)


@click.command()
@quick_option
@json_option
@seed_option
def reliability(quick: bool, json_file: str | None, seed: int) -> None:
    """Damage files, kill trainings, fill disks, search outputs for patients.

    \b
    Example:
        python -m benchmarks reliability --json reliability.json
    """
    records = run_reliability(click.echo, QUICK_FAULTS if quick else ALL_FAULTS, seed=seed)
    click.echo("\n" + reliability_table(records))
    write(json_file, records)
    if any(record.value for record in records if record.metric == "failures"):
        raise SystemExit(1)
