"""N-of-1 trials: error and coverage of individual effects in simulated patients.

A third of the patients of `make_nof1` are for training. Methods estimate the steady-state effect of
a unit of dose in each other patient from the first days; doses are in random order or follow the
outcome. The model was developed on other seeds.
"""

import warnings
from functools import partial
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.suite.arrays import Array, Mask
from benchmarks.suite.cells import Cell, Run
from benchmarks.suite.record import Record, number, pivot_table
from ehrmeta.data import NofOnePatients, make_nof1
from ehrmeta.errors import DataWarning
from ehrmeta.treatment import DoseResponse

Effects = tuple[Array, Array, Array]  # estimate, low, high of every patient

SUITE = "treatment"
SEEDS = (31, 32, 33, 34)
N_TRAIN, N_TEST, N_DAYS = 100, 200, 56
SHOTS = (28, 56)  # days
LEVEL = 0.9

OURS, LAST_DOSE = "DoseResponse", "DoseResponse, last dose only"
OWN, POOLED = "individual regression on dose", "pooled regression on dose"
ERROR, COVERAGE = "mean error", "coverage of 90 % intervals"
METRICS = (ERROR, "rmse", COVERAGE, "width")


def run_n_of_1(run: Run) -> list[Record]:
    """Score every method on every seed; --quick uses one seed and fewer patients."""
    sizes = (N_TRAIN // 2, N_TEST // 4) if run.quick else (N_TRAIN, N_TEST)
    return run.records(
        [
            Cell(f"n-of-1 {seed} {titration}", measure_periods, (seed, titration, *sizes))
            for titration in (False, True)
            for seed in (SEEDS[:1] if run.quick else SEEDS)
        ]
    )


def n_of_1_table(records: list[Record]) -> str:
    """Means over seeds, a table per design and number of days."""
    parts = []
    for case, k in dict.fromkeys((record.case, record.k) for record in records):
        scored = [record for record in records if (record.case, record.k) == (case, k)]
        columns = {metric: metric for metric in METRICS}
        means = pivot_table(scored, "metric", columns, lambda v: number(float(np.mean(v)), 2))
        parts.append(f"{case}, {k} days: effect of a dose\n{means}")
    return "\n\n".join(parts)


def measure_periods(seed: int, titration: bool, n_train: int, n_test: int) -> list[Record]:
    """Scores of every method for one draw of patients."""
    p = make_nof1(n_train + n_test, titration=titration, random_state=seed)
    truth = p.effect[n_train:]
    last_dose = DoseResponse(carry_over=0.0, ornstein_uhlenbeck=False)
    models = {OURS: DoseResponse(), LAST_DOSE: last_dose}
    train = p.groups < n_train
    records = []
    # warnings of titration, and of patients with one dose only
    with warnings.catch_warnings(action="ignore", category=DataWarning):
        for model in models.values():
            model.fit(p.X[train, 3:], p.y[train], **_keywords(p, train))
        for k in SHOTS:
            seen = ~train & (p.time < k)
            effects = {name: _adapted(model, p, seen, n_train) for name, model in models.items()}
            effects[OWN] = _own(p, seen, n_train)
            effects[POOLED] = _pooled(p, seen, n_test)
            case = "make_nof1, doses that follow the outcome" if titration else "make_nof1, random"
            of = partial(Record, SUITE, case, k=k, seed=seed, n_tasks=n_test)
            for name, (effect, low, high) in effects.items():
                known = np.isfinite(effect)
                error, inside = (effect - truth)[known], ((low < truth) & (truth < high))[known]
                rmse, width = np.sqrt(np.mean(error**2)), np.mean((high - low)[known])
                values = (error.mean(), rmse, inside.mean(), width)
                note = "" if known.all() else f"{int((~known).sum())} patients had one dose only"
                records += [
                    of(method=name, metric=metric, value=float(value), note=note)
                    for metric, value in zip(METRICS, values, strict=True)
                ]
    return records


def _keywords(p: NofOnePatients, rows: Mask) -> dict[str, Any]:
    return {"treatment": p.treatment[rows], "groups": p.groups[rows], "time": p.time[rows]}


def _adapted(model: DoseResponse, p: NofOnePatients, seen: Mask, n_train: int) -> Effects:
    adapted = model.adapt(p.X[seen, 3:], p.y[seen], **_keywords(p, seen))
    first = np.arange(n_train, len(p.effect)) * N_DAYS
    at: dict[str, Any] = {"T0": 0.0, "T1": 1.0, "groups": p.groups[first], "time": p.time[first]}
    low, high = adapted.effect_interval(p.X[first, 3:], confidence_level=LEVEL, **at).T
    return adapted.effect(p.X[first, 3:], **at), low, high


def _own(p: NofOnePatients, seen: Mask, n_train: int) -> Effects:
    """A least-squares line for every patient; NaN with one dose only."""
    lines = np.full((len(p.effect) - n_train, 3), np.nan)
    for at in range(len(lines)):
        rows = seen & (p.groups == n_train + at)
        if np.ptp(p.treatment[rows]):
            lines[at] = _line(p.treatment[rows], p.y[rows])
    return lines[:, 0], lines[:, 1], lines[:, 2]


def _pooled(p: NofOnePatients, seen: Mask, n_test: int) -> Effects:
    """One least-squares line for all patients."""
    effect, low, high = np.tile(_line(p.treatment[seen], p.y[seen]), (n_test, 1)).T
    return effect, low, high


def _line(dose: Array, y: Array) -> Array:
    fit = stats.linregress(dose, y)
    half = stats.t.ppf(0.5 + 0.5 * LEVEL, len(y) - 2) * fit.stderr
    return np.array([fit.slope, fit.slope - half, fit.slope + half])
