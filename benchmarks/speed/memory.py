"""Suite ``memory``: peak memory of training by number of patients, of a meta-gradient by method."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.speed.methods import METHODS
from benchmarks.speed.problem import Case, draw_problem, simulate_patients
from benchmarks.suite.cells import Cell, Run
from benchmarks.suite.command import CACHE, SEED, suite
from benchmarks.suite.record import Record, number, text_table
from benchmarks.suite.timing import resident, run_apart
from ehrmeta.algorithms import MAML
from ehrmeta.errors import MissingExtraError
from ehrmeta.estimators import MetaRegressor

ROWS_EACH, N_FEATURES = 20, 10
SIZES = (10_000, 100_000, 1_000_000)


@suite(CACHE, SEED)
def memory(run: Run) -> list[Record]:
    """Measure the peak memory of training on 10,000 to 1,000,000 patients.

    \b
    Example:
        python -m benchmarks memory --json memory.json
    """
    sizes, max_steps = ((1_000, 10_000), 20) if run.quick else (SIZES, 300)
    records = run.records(
        [Cell(f"memory {n}", measure_training_memory, (n, max_steps, run.seed)) for n in sizes]
    )
    run.show(memory_table(records))
    return records


def measure_training_memory(n_patients: int, max_steps: int = 300, seed: int = 0) -> list[Record]:
    """Peak GiB of simulating and fitting patients of 20 rows each, in a new process."""
    started = time.perf_counter()
    parts, peak = run_apart(_fit, n_patients, max_steps, seed)
    name = "memory", f"fit {n_patients:,} patients of {ROWS_EACH} rows, {max_steps} steps"
    seconds = time.perf_counter() - started
    about: dict[str, Any] = {"n_tasks": n_patients, "seconds": seconds, "seed": seed}
    return [
        Record(*name, "MetaRegressor(MAML())", metric, value, **about)
        for metric, value in {"gib": peak, **parts}.items()
    ]


def measure_gradient_memory(case: Case, methods: Sequence[str], seed: int = 0) -> list[Record]:
    """Additional peak GiB of computing a meta-gradient, each method in a new process."""
    records = []
    about: dict[str, Any] = {"k": case.shots, "n_tasks": case.n_tasks, "seed": seed}
    record = partial(Record, "memory", f"meta-gradient, {tuple(case)}", metric="gib", **about)
    for method in methods:
        started = time.perf_counter()
        note, value = "", None
        try:
            before, peak = run_apart(_gradient, method, case, seed)
            value = peak - before
        except MissingExtraError:
            note = "not installed"
        seconds = time.perf_counter() - started
        records.append(record(method=method, value=value, seconds=seconds, note=note))
    return records


def memory_table(records: Sequence[Record]) -> str:
    """Peak memory by size or method, with the size of the data and the time of the fit."""
    by_key = {(record.case, record.method, record.metric): record for record in records}
    rows = []
    for (case, method, metric), record in by_key.items():
        if metric != "gib":
            continue
        parts = [by_key.get((case, method, name)) for name in ("data_gib", "fit_seconds")]
        shown = ["" if part is None else number(part.value) for part in parts]
        rows.append([case, method, record.note or number(record.value), *shown])
    return text_table(["peak memory", "method", "GiB", "of it data", "seconds to fit"], rows)


def _fit(n_patients: int, max_steps: int, seed: int) -> Mapping[str, float]:
    """GiB of the data, and seconds of the fit."""
    patients = simulate_patients(np.full(n_patients, ROWS_EACH), N_FEATURES, seed)
    model = MetaRegressor(MAML(), max_steps=max_steps, verbose=False, random_state=seed)
    started = time.perf_counter()
    model.fit(patients.X, patients.y, groups=patients.groups)
    seconds = time.perf_counter() - started
    return {"data_gib": sum(a.nbytes for a in patients) / 2**30, "fit_seconds": seconds}


def _gradient(method: str, case: Case, seed: int) -> float:
    """GiB before computing the gradient."""
    run = METHODS[method](draw_problem(case, seed))
    before = resident()
    for _ in range(2):
        run()
    return before
