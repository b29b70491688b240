"""Suite ``speed``: time of a meta-gradient, of adapting a patient and of a training step."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from benchmarks.speed import adapting, meta_gradient
from benchmarks.speed.memory import measure_gradient_memory, memory_table
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
    """Measure time of meta-gradients, adapting and training steps, and memory.

    Methods run in turn in one process, after a check that their gradients are equal. Numbers are
    medians; ratios are computed within rounds.

    \b
    Example:
        python -m benchmarks speed --quick
    """
    for name in methods:
        if name not in METHODS:
            raise DataError(f"unknown method '{name}'. {did_you_mean(name, METHODS)}")
    about = machine()
    run.echo(
        f"{about['processor']}, {about['cpus']} cores, {about['threads']} threads of torch, "
        f"load {about['load'] or 0.0:.1f}, {about['date']}; all methods in one process"
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
    """Times of the methods on equal tasks, or on a number of ragged tasks of nafld-hdl."""
    draw: Callable[..., Any] = ragged_problem if isinstance(case, int) else draw_problem
    seconds, min_rounds = (1.0, 3) if quick else (10.0, 7)
    problem, names = draw(case, seed=seed, device=device), methods or tuple(METHODS)
    rounds: dict[str, Any] = {"seconds": seconds, "min_rounds": min_rounds}
    return meta_gradient.compare_methods(problem, names, required=methods, seed=seed, **rounds)


def _cells(
    run: Run, methods: tuple[str, ...], device: str, n_threads: int
) -> Iterator[tuple[Cell, Show]]:
    """Cells with the functions of their tables."""

    def cell(name: str, measure: Callable[..., list[Record]], *args: Any) -> Cell:
        return Cell(f"speed {name}, {n_threads} threads", measure, args)

    seconds = 1.0 if run.quick else 10.0
    for case in (*(CASES[:1] if run.quick else CASES), 64 if run.quick else 256):
        name = "nafld-hdl" if isinstance(case, int) else str(tuple(case))
        args = (case, methods, run.quick, device, run.seed)
        measured = cell(f"meta-gradient {name}", measure_meta_gradient, *args)
        yield measured, meta_gradient.method_table
    yield cell("adapt one patient", adapting.adapt_one, seconds, run.seed), adapting.latency_table
    n = 1_000 if run.quick else 10_000
    measured = cell("adapt many patients", adapting.adapt_many, n, seconds, run.seed)
    yield measured, adapting.throughput_table
    measured = cell("batch building", adapting.measure_batch_building, seconds, run.seed)
    yield measured, adapting.batch_table
    measured = cell("scaling", meta_gradient.measure_scaling, seconds, run.seed, device)
    yield measured, meta_gradient.scaling_table
    if not run.quick and device == "cpu":
        name, names = "memory of a meta-gradient", methods or tuple(METHODS)
        yield cell(name, measure_gradient_memory, CASES[3], names, run.seed), memory_table
