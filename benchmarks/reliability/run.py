"""Faults put in on purpose: how many, how long they took, and how many did harm."""

from __future__ import annotations

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
from benchmarks.reliability.interruptions import kill_trainings
from benchmarks.speed.steady import adapt_in_threads, grow_by_adapting
from benchmarks.suite.record import Record
from benchmarks.suite.text_table import number, text_table
from ehrmeta.algorithms import MAML
from ehrmeta.data import Table, make_sinusoid
from ehrmeta.estimators import MetaClassifier, MetaRegressor
from ehrmeta.nn import MLP

__all__ = ["FULL", "QUICK", "Amounts", "reliability_table", "run_reliability"]


@dataclass(frozen=True)
class Amounts:
    """How often each fault is tried."""

    damaged_files: int
    kills: int
    calls_in_threads: int
    adapts: int


FULL = Amounts(damaged_files=5_000, kills=100, calls_in_threads=2_000, adapts=10_000)
QUICK = Amounts(damaged_files=400, kills=3, calls_in_threads=200, adapts=500)


def run_reliability(
    say: Callable[[str], object], amounts: Amounts = FULL, *, seed: int = 0
) -> list[Record]:
    """Records of every kind of fault: how many were tried, and how many did harm.

    Parameters
    ----------
    say : callable
        Told about every kind as it is done.
    """
    model = _model()
    records: list[Record] = []

    def measured(case: str, measure: Callable[[], dict[str, float]]) -> None:
        started = time.perf_counter()
        found = measure()
        seconds = time.perf_counter() - started
        say(f"{case}: {number(found['failures'])} failures in {number(seconds)} s")
        records.extend(
            Record("reliability", case, "ehrmeta", metric, value, seconds=seconds, seed=seed)
            for metric, value in found.items()
        )

    def damaged() -> dict[str, float]:
        n = amounts.damaged_files
        failures, slowest, growth = refuse_damaged_files(list(_saves(model)), n, seed)
        return {"tried": n, "failures": failures, "slowest_s": slowest, "growth_gib": growth}

    def killed() -> dict[str, float]:
        failures, n_trainings = kill_trainings(amounts.kills, seed)
        return {"tried": amounts.kills, "failures": failures, "trainings": n_trainings}

    def failed_writes() -> dict[str, float]:
        failures, n_faults = fail_every_write(model)
        return {"tried": n_faults, "failures": failures}

    def canaries() -> dict[str, float]:
        leaked, n_cells = count_leaked_cells(_fit_with_checkpoints, seed)
        return {"tried": n_cells, "failures": leaked}

    def threads() -> dict[str, float]:
        n = amounts.calls_in_threads
        return {"tried": n, "failures": adapt_in_threads(model, n)}

    def growth() -> dict[str, float]:
        mib = grow_by_adapting(model, amounts.adapts)
        return {"tried": amounts.adapts, "failures": float(mib > 8.0), "growth_mib": mib}

    measured("damaged and forged model files", damaged)
    measured("disk full or broken at a step of a write", failed_writes)
    measured("cells of a table in files, output, errors", canaries)
    measured("adapt and predict in 8 threads", threads)
    measured("memory over adapt and predict", growth)
    measured("SIGKILL during a checkpointed training", killed)
    return records


def reliability_table(records: Sequence[Record]) -> str:
    """One line per kind of fault."""
    found = {(record.case, record.metric): record for record in records}
    rows = []
    for case in dict.fromkeys(record.case for record in records):
        tried, failures = found[case, "tried"], found[case, "failures"]
        notes = [
            f"{number(record.value)} {words}"
            for metric, words in _NOTES.items()
            if (record := found.get((case, metric))) is not None
        ]
        rows.append(
            [case, *(f"{r.value:,.0f}" for r in (tried, failures)), number(tried.seconds), *notes]
            + [""] * (2 - len(notes))
        )
    return text_table(["fault", "tried", "failures", "seconds", "", ""], rows)


_NOTES = {
    "slowest_s": "s the slowest",
    "growth_gib": "GiB more at most",
    "growth_mib": "MiB more after",
    "trainings": "trainings compared",
}


def _model() -> MetaRegressor:
    X, y, groups = make_sinusoid(n_tasks=60, n_points=10, random_state=0)
    model = MetaRegressor(MAML(), MLP((16, 16)), max_steps=20, verbose=False, random_state=0)
    return model.fit(X, y, groups=groups)


def _saves(model: MetaRegressor) -> Iterator[Callable[[Path], object]]:
    """What writes a file of every kind: models with and without a population, and patients."""
    table = Table.from_frame(
        marked_table(), task="patient", time="day", outcome="hdl", measured=("creatinine",)
    )
    X, y = table.X, table.y
    told: dict[str, Any] = {"groups": table.groups, "time": table.time}
    yield model.save
    regressor = MetaRegressor(max_steps=2, verbose=False, random_state=0).fit(X, y, **told)
    yield regressor.save
    yield regressor.adapt(X, y, **told).save
    boosted = HistGradientBoostingClassifier(max_iter=3)
    classifier = MetaClassifier(population=boosted, max_steps=2, verbose=False, random_state=0)
    yield classifier.fit(X, y > np.median(y), **told).save


def _fit_with_checkpoints(table: Table, folder: Path) -> MetaRegressor:
    model = MetaRegressor(max_steps=60, verbose=True, random_state=0)
    return model.fit(table.X, table.y, groups=table.groups, time=table.time, checkpoint_dir=folder)
