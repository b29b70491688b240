"""The speed suite: what a meta-gradient, an adapted patient and a training step cost."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from benchmarks.speed import adapting
from benchmarks.speed.memory import measure_gradient_memory, memory_table
from benchmarks.speed.meta_gradient import (
    compare_methods,
    measure_scaling,
    method_table,
    scaling_table,
)
from benchmarks.speed.methods import METHODS
from benchmarks.speed.problem import CASES, Case, draw_problem, ragged_problem
from benchmarks.suite.cells import Cell, Run
from benchmarks.suite.command import CACHE, SEED, suite
from benchmarks.suite.record import Record, machine
from ehrmeta.errors import DataError, did_you_mean
from ehrmeta.estimators.learner import pick_device

Show = Callable[[Sequence[Record]], str]


@suite(
    CACHE,
    SEED,
    click.option(
        "--method",
        "methods",
        multiple=True,
        help="Only this method of the meta-gradient; may be repeated.",
    ),
    click.option("--device", default="cpu", show_default=True, help="Of the meta-gradients."),
)
def speed(run: Run, methods: Sequence[str] = (), device: str = "cpu") -> list[Record]:
    """Time meta-gradients, adapting, training steps; count memory.

    Every method runs in the same process in turn, after a check that all compute the same
    gradient; numbers are medians, and ratios are taken within a round.

    \b
    Example:
        python -m benchmarks speed --quick
    """
    for name in methods:
        if name not in METHODS:
            raise DataError(f"there is no method '{name}'. {did_you_mean(name, METHODS)}")
    about = machine()
    run.say(
        f"{about['processor']}, {about['cpus']} cores, {about['threads']} threads of torch, "
        f"load {about['load'] or 0.0:.1f}, {about['date']}; all methods side by side in one process"
    )
    records: list[Record] = []
    for cell, table in _cells(run, tuple(methods), str(pick_device(device)), about["threads"]):
        measured = run.records([cell])
        run.show(table(measured))
        records += measured
    return records


def measure_meta_gradient(
    case: Case | int, methods: Sequence[str], quick: bool, device: str, seed: int
) -> list[Record]:
    """Times of the methods on equal tasks of a case, or on so many ragged tasks of nafld-hdl."""
    draw: Callable[..., Any] = ragged_problem if isinstance(case, int) else draw_problem
    seconds, min_rounds = (1.0, 3) if quick else (10.0, 7)
    problem = draw(case, seed=seed, device=device)
    return compare_methods(
        problem,
        methods or tuple(METHODS),
        seconds=seconds,
        min_rounds=min_rounds,
        required=methods,
        seed=seed,
    )


def _cells(
    run: Run, methods: tuple[str, ...], device: str, n_threads: int
) -> Iterator[tuple[Cell, Show]]:
    """What to measure, and its table."""

    def cell(name: str, measure: Callable[..., list[Record]], *args: Any) -> Cell:
        return Cell(f"speed {name}, {n_threads} threads", measure, args)

    seconds = 1.0 if run.quick else 10.0
    for case in (*(CASES[:1] if run.quick else CASES), 64 if run.quick else 256):
        name = "nafld-hdl" if isinstance(case, int) else str(tuple(case))
        args = (case, methods, run.quick, device, run.seed)
        yield cell(f"meta-gradient {name}", measure_meta_gradient, *args), method_table
    yield cell("adapt one patient", adapting.adapt_one, seconds, run.seed), adapting.latency_table
    n_patients = 1_000 if run.quick else 10_000
    yield (
        cell("adapt many patients", adapting.adapt_many, n_patients, seconds, run.seed),
        adapting.throughput_table,
    )
    yield (
        cell("batch building", adapting.measure_batch_building, seconds, run.seed),
        adapting.batch_table,
    )
    yield cell("scaling", measure_scaling, seconds, run.seed, device), scaling_table
    if not run.quick and device == "cpu":
        timed = methods or tuple(METHODS)
        memory = cell(
            "memory of a meta-gradient", measure_gradient_memory, CASES[3], timed, run.seed
        )
        yield memory, memory_table
