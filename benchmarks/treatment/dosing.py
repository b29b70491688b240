"""Dosing of simulated patients: how often chosen doses reach the target range.

Half of the patients of `make_pk` are for training. Every method adapts to the first k
concentrations of the others and chooses a dose for the steady state from a grid. A dose is scored
by the truth (share of patients in the range), and by its chance under the true posterior given the
same rows, which has less noise. `OneCompartment` and the comparators know the pharmacokinetic model
and the dose history; `DoseResponse` knows neither. The model was developed on other seeds.
"""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.suite.arrays import Array, Index, Mask
from benchmarks.suite.cells import Cell, Run
from benchmarks.suite.record import Record, number, pivot_table
from benchmarks.treatment import compartment
from ehrmeta.data import DosedPatients, make_pk
from ehrmeta.errors import DataWarning
from ehrmeta.treatment import AdaptedCompartment, AdaptedDoses, DoseResponse, OneCompartment

SUITE = "treatment"
SEEDS = (11, 12, 13, 14, 15)
N_TRAIN, N_TEST, N_LEVELS = 200, 200, 5
SHOTS = (1, 2, 3, 5)
GRID = np.geomspace(50.0, 4800.0, 150)  # mg

LAW, FREE = "OneCompartment", "DoseResponse (model-free)"
MAP, TRUE_MAP = "MAP, estimated population", "MAP, true population"
LEAST_SQUARES, POPULATION = "individual least squares", "population, true"
ONE_DOSE, CEILING = "one dose for all", "best under the true posterior"
TRUTH = "share in the target range", "chance under the true posterior"
CLOSED = "share of the gap closed"
BETTER = f"chance minus that of {MAP}"


def run_dosing(run: Run) -> list[Record]:
    """Score every method on every seed; --quick uses one seed of a quarter of the patients."""
    sizes = (N_TRAIN // 4, N_TEST // 4) if run.quick else (N_TRAIN, N_TEST)
    seeds = SEEDS[:1] if run.quick else SEEDS
    return run.records([Cell(f"dosing {seed}", measure_doses, (seed, *sizes)) for seed in seeds])


def dosing_table(records: list[Record]) -> str:
    """Means over seeds by method (rows) and number of concentrations (columns)."""
    parts = []
    for metric in (*TRUTH, CLOSED, BETTER) if records else ():
        scored = [record for record in records if record.metric == metric]
        shots = sorted({record.k for record in scored if record.k is not None})
        columns = {f"k = {k}": k for k in shots}
        parts.append(f"make_pk: {metric}\n{pivot_table(scored, 'k', columns, _mean)}")
    return "\n\n".join(parts)


def _mean(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else None
    return number(float(np.mean(values))) + ("" if spread is None else f" ({number(spread, 1)})")


def measure_doses(seed: int, n_train: int, n_test: int) -> list[Record]:
    """Scores of the doses of every method for one draw of patients."""
    patients = make_pk(n_train + n_test, N_LEVELS, random_state=seed)
    test = np.arange(n_train, n_train + n_test)
    grid = np.tile(GRID, (n_train + n_test, 1))
    reached = patients.in_target(grid)
    no_rows = np.zeros(len(patients.y), bool)
    prior_chance = patients.chance(no_rows, GRID, seed)[test]
    route: Literal["oral", "iv"] = "oral" if patients.oral else "iv"
    training = _rows(patients, patients.groups < n_train)
    models: dict[str, OneCompartment | DoseResponse] = {
        LAW: OneCompartment("x2", interval=12.0, route=route).fit(**training),
        FREE: _without_law(training),
    }
    estimated = compartment.fit_population(
        compartment.rows_of(patients, torch.arange(n_train), N_LEVELS), patients.oral
    )
    records = []
    for k in SHOTS:
        seen = np.tile(np.arange(N_LEVELS) < k, n_train + n_test)
        chance = patients.chance(seen, GRID, seed)[test]
        rows = compartment.rows_of(patients, torch.as_tensor(test), k)
        chosen = {
            ONE_DOSE: np.full(n_test, reached[:n_train].mean(axis=0).argmax()),
            POPULATION: prior_chance.argmax(axis=1),
            LEAST_SQUARES: _aimed(compartment.only(estimated, min(k, 3)), rows, patients.target),
            MAP: _aimed(estimated, rows, patients.target),
            **{n: _ours_chooses(m, patients, seen, test) for n, m in models.items()},
            TRUE_MAP: _aimed(_true(patients.oral), rows, patients.target),
            CEILING: chance.argmax(axis=1),
        }
        records += _records(chosen, reached[test], chance, k, seed)
    return records


def _records(
    chosen: dict[str, Index], reached: Mask, chance: Array, k: int, seed: int
) -> list[Record]:
    each = np.arange(len(chance))
    of = partial(Record, SUITE, "make_pk", k=k, seed=seed, n_tasks=len(each))
    scores = {name: chance[each, at] for name, at in chosen.items()}
    gap = scores[CEILING].mean() - scores[POPULATION].mean()
    records = []
    for name, at in chosen.items():
        share, chances = float(reached[each, at].mean()), scores[name]
        closed = float((chances.mean() - scores[POPULATION].mean()) / gap)
        values = zip((*TRUTH, CLOSED), (share, float(chances.mean()), closed), strict=True)
        records += [of(method=name, metric=metric, value=value) for metric, value in values]
    for name in (LAW, FREE):
        better = scores[name] - scores[MAP]
        mean = float(better.mean())
        half = 1.96 * float(better.std(ddof=1)) / np.sqrt(len(better))
        limits = {"value": mean, "low": mean - half, "high": mean + half}
        records.append(of(method=name, metric=BETTER, **limits))
    return records


def _features(patients: DosedPatients) -> Array:
    """Logarithms of weight and creatinine clearance, and hours since the dose."""
    return np.column_stack([np.log(patients.X[:, :2]), patients.X[:, 3]])


def _rows(patients: DosedPatients, rows: Mask) -> dict[str, Any]:
    """Arguments of fit and adapt for some rows."""
    columns = {"y": patients.y, "groups": patients.groups, "time": patients.time}
    columns |= {"X": _features(patients), "treatment": patients.X[:, 2]}
    return {name: values[rows] for name, values in columns.items()}


def _without_law(training: dict[str, Any]) -> DoseResponse:
    model = DoseResponse(
        ["x2"],
        dose_scale="log",
        outcome_transform="log",
        random_slope=False,
        trend=False,
        own_carry_over=True,
    )
    return model.fit(**training)


def _ours_chooses(
    model: OneCompartment | DoseResponse, patients: DosedPatients, seen: Mask, test: Index
) -> Index:
    rows = _rows(patients, seen & (patients.groups >= test[0]))
    adapted: AdaptedCompartment | AdaptedDoses = model.adapt(**rows)
    query = _features(patients)[test * N_LEVELS]
    query[:, 2] = 12.0  # hours: before the next dose
    with warnings.catch_warnings(action="ignore", category=DataWarning):  # doses beyond the data
        best = adapted.recommend(query, target=patients.target, grid=GRID, groups=test)
    return np.asarray(np.searchsorted(GRID, best["dose"].to_numpy()))


def _aimed(
    population: compartment.Population, rows: compartment.Rows, target: tuple[float, float]
) -> Index:
    """Dose for which the concentration at the mode is nearest to the target's geometric mean."""
    log_parameters, _ = compartment.modes(population, rows)
    per_mg = compartment.steady(log_parameters, population.oral).numpy()
    dose = np.sqrt(target[0] * target[1]) / per_mg
    return np.asarray(np.abs(np.log(GRID) - np.log(dose)[:, None]).argmin(axis=1))


def _true(oral: bool) -> compartment.Population:
    """The population of `make_pk`, as documented."""
    sd = torch.tensor([0.35, 0.2, 0.3], dtype=torch.float64)
    beta = [np.log(4.0), 0.75, 0.6, np.log(40.0), 1.0, 0.0]
    error = torch.tensor([0.15, 0.2], dtype=torch.float64)
    return compartment.Population(
        torch.tensor(beta), torch.diag(1 / sd**2), error[0], error[1], oral
    )
