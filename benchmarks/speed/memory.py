"""Suite ``memory``: peak memory and time of training by number of patients, of a meta-gradient."""

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
LEARNERS = ("MetaRegressor(MAML())", "MetaRegressor()")
_COLUMNS = ("data_gib", "fit_seconds", "fit_cpu_seconds")
SIZES = (10_000, 100_000, 1_000_000)


@suite(CACHE, SEED)
def memory(run: Run) -> list[Record]:
    """Measure peak memory and time of training on 10,000 to 1,000,000 patients.

    MAML is trained for 300 steps without time; the default, as it is, on patients with time.

    \b
    Example:
        python -m benchmarks memory --json memory.json
    """
    sizes, max_steps = ((1_000, 10_000), 20) if run.quick else (SIZES, 300)
    cells = [Cell(f"memory {n}", measure_training_memory, (n, max_steps, run.seed)) for n in sizes]
    default_steps = max_steps if run.quick else MetaRegressor().max_steps
    cells += [
        Cell(f"memory {n}, default", measure_training_memory, (n, default_steps, run.seed, True))
        for n in sizes
    ]
    records = run.records(cells)
    run.show(memory_table(records))
    return records


def measure_training_memory(
    n_patients: int, max_steps: int = 300, seed: int = 0, default: bool = False
) -> list[Record]:
    """Peak GiB of simulating and fitting patients of 20 rows each, in a new process."""
    started = time.perf_counter()
    parts, peak = run_apart(_fit_default if default else _fit, n_patients, max_steps, seed)
    name = "memory", f"fit {n_patients:,} patients of {ROWS_EACH} rows, {max_steps} steps"
    seconds = time.perf_counter() - started
    about: dict[str, Any] = {"n_tasks": n_patients, "seconds": seconds, "seed": seed}
    return [
        Record(*name, LEARNERS[default], metric, value, **about)
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
        parts = [by_key.get((case, method, name)) for name in _COLUMNS]
        shown = ["" if part is None else number(part.value) for part in parts]
        rows.append([case, method, record.note or number(record.value), *shown])
    names = ["peak memory", "method", "GiB", "of it data", "seconds to fit", "CPU seconds"]
    return text_table(names, rows)


def _fit(n_patients: int, max_steps: int, seed: int) -> Mapping[str, float]:
    """GiB of the data, and seconds of the fit."""
    patients = simulate_patients(np.full(n_patients, ROWS_EACH), N_FEATURES, seed)
    model = MetaRegressor(MAML(), max_steps=max_steps, verbose=False, random_state=seed)
    arrays = {"X": patients.X, "y": patients.y, "groups": patients.groups}
    return _measure_fit(model, arrays)


def _fit_default(n_patients: int, max_steps: int, seed: int) -> Mapping[str, float]:
    """As `_fit`, of the default, for patients with sex, age, BMI and a course in time."""
    rng, shape = np.random.default_rng(seed), (n_patients, ROWS_EACH)
    each = np.array([0, 60.0, 27.0]) + rng.normal(0, [1, 10.0, 4.0], (n_patients, 3))
    each[:, 0] = each[:, 0] > 0
    days = np.sort(rng.uniform(0, 10, shape), 1)
    level, slope = rng.normal(0, [1, 0.06], (n_patients, 2)).T[:, :, None]
    y = 5 + level + slope * days + (each @ [0.3, 0.02, 0.05])[:, None] + 0.2 * np.sin(days)
    arrays = {
        "X": np.repeat(each, ROWS_EACH, 0),
        "y": (y + rng.normal(0, 0.7, shape)).ravel(),
        "groups": np.repeat(np.arange(n_patients), ROWS_EACH),
        "time": days.ravel(),
    }
    return _measure_fit(
        MetaRegressor(max_steps=max_steps, verbose=False, random_state=seed), arrays
    )


def _measure_fit(model: MetaRegressor, arrays: dict[str, Any]) -> Mapping[str, float]:
    started, cpu = time.perf_counter(), time.process_time()
    model.fit(**arrays)
    return {
        "data_gib": sum(array.nbytes for array in arrays.values()) / 2**30,
        "fit_seconds": time.perf_counter() - started,
        "fit_cpu_seconds": time.process_time() - cpu,
    }


def _gradient(method: str, case: Case, seed: int) -> float:
    """GiB before computing the gradient."""
    run = METHODS[method](draw_problem(case, seed))
    before = resident()
    for _ in range(2):
        run()
    return before
