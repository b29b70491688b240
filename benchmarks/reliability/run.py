"""Suite ``reliability``: injected faults, and the number that caused a failure."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from benchmarks.reliability.canaries import count_leaked_cells, marked_table
from benchmarks.reliability.damage import refuse_damaged_files
from benchmarks.reliability.faults import fail_every_write
from benchmarks.reliability.forgery import subjects, use_forged_files
from benchmarks.reliability.interruptions import adapt_in_threads, grow_by_adapting, kill_trainings
from benchmarks.suite.cells import Run
from benchmarks.suite.command import SEED, suite
from benchmarks.suite.record import Record, number, text_table
from ehrmeta.algorithms import MAML
from ehrmeta.data import Table, make_sinusoid
from ehrmeta.estimators import MetaClassifier, MetaRegressor
from ehrmeta.nn import MLP


@dataclass(frozen=True)
class Amounts:
    """Number of repetitions of each fault."""

    damaged_files: int
    forged_files: int
    kills: int
    calls_in_threads: int
    adapts: int


FULL = Amounts(
    damaged_files=5_000, forged_files=5_000, kills=100, calls_in_threads=2_000, adapts=10_000
)
QUICK = Amounts(damaged_files=400, forged_files=200, kills=3, calls_in_threads=200, adapts=500)


@suite(SEED)
def reliability(run: Run) -> list[Record]:
    """Damage files, kill trainings, simulate full disks, search outputs for patient data.

    \b
    Example:
        python -m benchmarks reliability --json reliability.json
    """
    records = run_reliability(run, QUICK if run.quick else FULL)
    run.show(reliability_table(records))
    return records


def run_reliability(run: Run, amounts: Amounts = FULL) -> list[Record]:
    """Records of every kind of fault: number tried, and number of failures."""
    model = _model()
    records: list[Record] = []
    for case, measure in _FAULTS.items():
        started = time.perf_counter()
        values = measure(model, amounts, run.seed)
        seconds = time.perf_counter() - started
        run.echo(f"{case}: {number(values['failures'])} failures in {number(seconds)} s")
        records += [
            Record("reliability", case, "ehrmeta", metric, value, seconds=seconds, seed=run.seed)
            for metric, value in values.items()
        ]
    return records


def _damaged_files(model: MetaRegressor, amounts: Amounts, seed: int) -> dict[str, float]:
    n = amounts.damaged_files
    failures, slowest, growth = refuse_damaged_files(list(_saves(model)), n, seed)
    return {"tried": n, "failures": failures, "slowest_s": slowest, "growth_gib": growth}


def _forged_files(model: MetaRegressor, amounts: Amounts, seed: int) -> dict[str, float]:
    outcomes = use_forged_files(subjects(), amounts.forged_files, seed)
    failures = sum(outcomes.failures.values())
    sizes = {"slowest_s": outcomes.slowest, "growth_gib": outcomes.growth}
    return {"tried": amounts.forged_files, "failures": failures, **sizes}


def _failed_writes(model: MetaRegressor, amounts: Amounts, seed: int) -> dict[str, float]:
    failures, n_faults = fail_every_write(model)
    return {"tried": n_faults, "failures": failures}


def _leaked_cells(model: MetaRegressor, amounts: Amounts, seed: int) -> dict[str, float]:
    leaked, n_cells = count_leaked_cells(_fit_with_checkpoints, seed)
    return {"tried": n_cells, "failures": leaked}


def _threads(model: MetaRegressor, amounts: Amounts, seed: int) -> dict[str, float]:
    n = amounts.calls_in_threads
    return {"tried": n, "failures": adapt_in_threads(model, n)}


def _growth(model: MetaRegressor, amounts: Amounts, seed: int) -> dict[str, float]:
    mib = grow_by_adapting(model, amounts.adapts)
    return {"tried": amounts.adapts, "failures": float(mib > 8.0), "growth_mib": mib}


def _killed_trainings(model: MetaRegressor, amounts: Amounts, seed: int) -> dict[str, float]:
    failures, n_trainings = kill_trainings(amounts.kills, seed)
    return {"tried": amounts.kills, "failures": failures, "trainings": n_trainings}


_FAULTS: dict[str, Callable[[MetaRegressor, Amounts, int], dict[str, float]]] = {
    "damaged and forged model files": _damaged_files,
    "forged model files, loaded and used": _forged_files,
    "disk full or broken at a step of a write": _failed_writes,
    "cells of a table in files, output, errors": _leaked_cells,
    "adapt and predict in 8 threads": _threads,
    "memory over adapt and predict": _growth,
    "SIGKILL during a checkpointed training": _killed_trainings,
}


def reliability_table(records: Sequence[Record]) -> str:
    """One line per kind of fault."""
    by_key = {(record.case, record.metric): record for record in records}
    rows = []
    for case in dict.fromkeys(record.case for record in records):
        tried, failures = by_key[case, "tried"], by_key[case, "failures"]
        notes = [
            f"{number(record.value)} {note}"
            for metric, note in _NOTES.items()
            if (record := by_key.get((case, metric))) is not None
        ]
        rows.append(
            [case, *(f"{r.value:,.0f}" for r in (tried, failures)), number(tried.seconds), *notes]
            + [""] * (2 - len(notes))
        )
    return text_table(["fault", "tried", "failures", "seconds", "", ""], rows)


_NOTES = {
    "slowest_s": "s for the slowest",
    "growth_gib": "GiB growth at most",
    "growth_mib": "MiB growth",
    "trainings": "trainings compared",
}


def _model() -> MetaRegressor:
    X, y, groups = make_sinusoid(n_tasks=60, n_points=10, random_state=0)
    model = MetaRegressor(MAML(), MLP((16, 16)), max_steps=20, verbose=False, random_state=0)
    return model.fit(X, y, groups=groups)


def _saves(model: MetaRegressor) -> Iterator[Callable[[Path], object]]:
    """Functions that write files of models with and without a population, and of patients."""
    table = Table.from_frame(
        marked_table(), task="patient", time="day", outcome="hdl", measured=("creatinine",)
    )
    X, y = table.X, table.y
    context: dict[str, Any] = {"groups": table.groups, "time": table.time}
    yield model.save
    regressor = MetaRegressor(max_steps=2, verbose=False, random_state=0).fit(X, y, **context)
    yield regressor.save
    yield regressor.adapt(X, y, **context).save
    boosted = HistGradientBoostingClassifier(max_iter=3)
    classifier = MetaClassifier(population=boosted, max_steps=2, verbose=False, random_state=0)
    yield classifier.fit(X, y > np.median(y), **context).save


def _fit_with_checkpoints(table: Table, folder: Path) -> MetaRegressor:
    model = MetaRegressor(max_steps=60, verbose=True, random_state=0)
    return model.fit(table.X, table.y, groups=table.groups, time=table.time, checkpoint_dir=folder)
