"""One cell of the cohorts benchmark: one method on one fold of sites of one data set."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from benchmarks.cohorts.data import COHORT_DATA, CohortData, load_cohorts
from benchmarks.cohorts.methods import BAYES_RULE, COHORT_METHODS
from benchmarks.suite.score_files import Fitted, code_digest, kept
from benchmarks.suite.task_scores import Scores
from ehrmeta.errors import AtypicalWarning, DataWarning

__all__ = ["FULL", "QUICK", "CohortPlan", "folds_of", "methods_of", "run_cohort_cell", "supports"]

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class CohortPlan:
    """How much is run.

    Parameters
    ----------
    n_folds, folds_run : int
        Folds of sites (one site each where there are fewer), and how many of them are run.
    max_draws : int
        Supports drawn of every site at most.
    seed : int
    """

    n_folds: int = 5
    folds_run: int = 5
    max_draws: int = 5
    seed: int = 0


FULL = CohortPlan()
QUICK = CohortPlan(folds_run=1, max_draws=1)


def methods_of(data_set: str) -> dict[str, Any]:
    """Name and model of everything that runs on a data set; None is the Bayes rule."""
    kind = {"warfarin": "dose", "respiratory": "visits"}.get(data_set, "risk")
    methods = dict(COHORT_METHODS[kind])
    if data_set.startswith("make_cohorts"):
        methods[BAYES_RULE] = None
    return methods


def folds_of(data_set: str, plan: CohortPlan) -> int:
    """Folds run of a data set."""
    return min(plan.folds_run, plan.n_folds, int(load_cohorts(data_set).groups.max()) + 1)


def run_cohort_cell(
    data_set: str, method: str, fold: int, plan: CohortPlan, folder: Path | None
) -> Fitted:
    """Measure a cell, or read it where the folder has it under these settings and this code."""
    source = COHORT_DATA[data_set]
    about = [source.shots, source.n_draws, repr(methods_of(data_set)[method]), asdict(plan)]
    about.append(_code())
    name = f"cohorts {data_set} {method} {fold}"
    return kept(folder, name, [name, *about], lambda: _measure(data_set, method, fold, plan))


@cache
def _code() -> str:
    """As it is when the first cell is asked for."""
    return code_digest("cohorts/[cdmw]*.py")


def supports(
    data: CohortData, sites: NDArray[np.int64], k: int, draw: int, seed: int
) -> tuple[Mask, Mask]:
    """Support and query of each site that has more than k rows: first rows, or random ones."""
    support, query = np.zeros(len(data.y), dtype=bool), np.zeros(len(data.y), dtype=bool)
    for site in sites:
        rows = np.flatnonzero(data.groups == site)
        if not data.ordered:
            rows = np.random.default_rng((seed, int(site), draw)).permutation(rows)
        if len(rows) > k:
            support[rows[:k]], query[rows[k:]] = True, True
    return support, query


def _measure(data_set: str, method: str, fold: int, plan: CohortPlan) -> Fitted:
    """Predictions of the query rows, by k: ``row``, ``site``, ``y`` and ``predicted``."""
    data, source = load_cohorts(data_set), COHORT_DATA[data_set]
    n_sites = int(data.groups.max()) + 1
    order = np.random.default_rng(plan.seed).permutation(n_sites)
    held_out = order[fold :: min(plan.n_folds, n_sites)]
    train = ~np.isin(data.groups, held_out)
    started = time.perf_counter()
    model = methods_of(data_set)[method]
    with warnings.catch_warnings():  # among many sites some are atypical by chance
        warnings.simplefilter("ignore", AtypicalWarning)
        warnings.simplefilter("ignore", DataWarning)
        if model is not None:
            model = clone(model).fit(data.X[train], data.y[train], groups=data.groups[train])
        seconds = time.perf_counter() - started
        draws = min(source.n_draws, plan.max_draws)
        scores = {
            k: _joined(_predictions(model, data, held_out, k, draws if k else 1, plan.seed))
            for k in source.shots
        }
    return Fitted({k: found for k, found in scores.items() if found}, seconds)


def _predictions(
    model: Any, data: CohortData, sites: NDArray[np.int64], k: int, draws: int, seed: int
) -> Iterator[Scores]:
    for draw in range(draws):
        support, query = supports(data, sites, k, draw, seed)
        if query.any():
            yield {
                "row": np.flatnonzero(query).astype(np.float64),
                "site": data.groups[query].astype(np.float64),
                "y": data.y[query].astype(np.float64),
                "predicted": _predicted(model, data, support, query),
            }


def _predicted(model: Any, data: CohortData, support: Mask, query: Mask) -> NDArray[np.float64]:
    """Risk of the event, or the median of a real-valued outcome, (query row,)."""
    if model is None and data.bayes_rule is not None:
        return data.bayes_rule(support, query)
    X, groups = data.X[query], {}
    if support.any():
        groups = {"groups": data.groups[query]}
        seen = data.groups[support]
        adapted = model.adapt(data.X[support], data.y[support], groups=seen)
    else:
        adapted = model.unadapted()
    if data.binary:
        return np.asarray(adapted.predict_proba(X, **groups)[:, 1])
    return np.asarray(adapted.predict_quantiles(X, [0.5], **groups)[:, 0])


def _joined(parts: Iterator[Scores]) -> Scores:
    found = list(parts)
    if not found:
        return {}
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}
