"""Peak memory of training by the number of patients, and of a meta-gradient by method."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.speed.meta_gradient import METHODS
from benchmarks.speed.problem import Case, draw_problem
from benchmarks.speed.simulate import simulate_patients
from benchmarks.suite.peak import resident, run_apart
from benchmarks.suite.record import Record
from benchmarks.suite.text_table import number, text_table
from ehrmeta.algorithms import MAML
from ehrmeta.errors import MissingExtraError
from ehrmeta.estimators import MetaRegressor

__all__ = ["measure_gradient_memory", "measure_training_memory", "memory_table"]

ROWS_EACH, N_FEATURES = 20, 10
SIZES = (10_000, 100_000, 1_000_000)


def measure_training_memory(
    sizes: Sequence[int] = SIZES, *, max_steps: int = 300, seed: int = 0
) -> list[Record]:
    """Peak GiB of simulating and fitting so many patients of 20 rows, each in a fresh process."""
    records = []
    for n_patients in sizes:
        started = time.perf_counter()
        parts, peak = run_apart(_fit, n_patients, max_steps, seed)
        found = {"gib": peak, **parts}
        records += [
            Record(
                suite="memory",
                case=f"fit {n_patients:,} patients of {ROWS_EACH} rows, {max_steps} steps",
                method="MetaRegressor(MAML())",
                metric=metric,
                value=value,
                n_tasks=n_patients,
                seconds=time.perf_counter() - started,
                seed=seed,
            )
            for metric, value in found.items()
        ]
    return records


def measure_gradient_memory(case: Case, methods: Sequence[str], *, seed: int = 0) -> list[Record]:
    """Peak GiB that computing a meta-gradient adds, each method in a fresh process."""
    records = []
    for method in methods:
        started = time.perf_counter()
        note, value = "", None
        try:
            before, peak = run_apart(_gradient, method, case, seed)
            value = peak - before
        except MissingExtraError:
            note = "not installed"
        records.append(
            Record(
                suite="memory",
                case=f"meta-gradient, {tuple(case)}",
                method=method,
                metric="gib",
                value=value,
                k=case.shots,
                n_tasks=case.n_tasks,
                seconds=time.perf_counter() - started,
                seed=seed,
                note=note,
            )
        )
    return records


def memory_table(records: Sequence[Record]) -> str:
    """Peak memory by size or method, with what it was spent on."""
    found = {(record.case, record.method, record.metric): record for record in records}
    rows = []
    for (case, method, metric), record in found.items():
        if metric != "gib":
            continue
        parts = [found.get((case, method, name)) for name in ("data_gib", "fit_seconds")]
        rows.append(
            [
                case,
                method,
                record.note or number(record.value),
                *("" if part is None else number(part.value) for part in parts),
            ]
        )
    return text_table(["peak memory", "method", "GiB", "of it data", "seconds to fit"], rows)


def _fit(n_patients: int, max_steps: int, seed: int) -> Mapping[str, float]:
    """GiB of the table handed in, and seconds of fitting it."""
    patients = simulate_patients(np.full(n_patients, ROWS_EACH), N_FEATURES, seed)
    model = MetaRegressor(MAML(), max_steps=max_steps, verbose=False, random_state=seed)
    started = time.perf_counter()
    model.fit(patients.X, patients.y, groups=patients.groups)
    seconds = time.perf_counter() - started
    return {"data_gib": sum(a.nbytes for a in patients) / 2**30, "fit_seconds": seconds}


def _gradient(method: str, case: Case, seed: int) -> float:
    """GiB held before the gradient is computed."""
    run = METHODS[method](draw_problem(case, seed))
    before = resident()
    for _ in range(2):
        run()
    return before
