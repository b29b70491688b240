"""Cells of the treatment benchmark with known true effects: ACIC 2016, and simulated sites."""

import time
import warnings
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold, train_test_split

from benchmarks.suite.arrays import Array, Index
from benchmarks.suite.record import Record
from benchmarks.treatment.methods import METHODS, OURS, fit_ours
from ehrmeta.data import load_frame, make_treatment
from ehrmeta.errors import DataWarning
from ehrmeta.evaluation.metrics import bootstrap_counts, percentile_limits

SUITE = "treatment"
BAYES = "Bayes rule"
CONSTANT = ("acic2016 2", "acic2016 3")  # with a constant effect
N_SITES = 50  # for training, and for testing
N_QUERIES = 200  # patients of a new site
LEVEL = 0.9


def measure_acic(instance: int, method: str, n_folds: int) -> list[Record]:
    """Errors on one instance, over the test rows of all folds and over one held-out tenth."""
    start = time.perf_counter()
    X, y, t, truth = _acic(instance)
    folds = list(KFold(5, shuffle=True, random_state=0).split(X))[:n_folds]
    effect = np.full(len(y), np.nan)
    for train, test in folds:
        effect[test] = _effects(method, X[train], y[train], t[train], X[test])
    rows = ~np.isnan(effect)
    spread = float(truth.std())
    records = _errors(f"acic2016 {instance}", method, effect[rows], truth[rows], spread)
    if n_folds == len(list(KFold(5).split(X))):
        train, test = train_test_split(np.arange(len(y)), test_size=0.1, random_state=0)
        held_out = _effects(method, X[train], y[train], t[train], X[test])
        case = f"acic2016 {instance}, 90/10"
        records += _errors(case, method, held_out, truth[test], spread)
    seconds = time.perf_counter() - start
    return [replace(record, seconds=seconds) for record in records]


def measure_sites(
    method: str, heterogeneity: float, confounding: float, shots: tuple[int, ...], n_repeats: int
) -> list[Record]:
    """Errors in new sites after adapting to k patients, averaged over sites and repeats."""
    start = time.perf_counter()
    case = f"sites, heterogeneity {heterogeneity:g}, confounding {confounding:g}"
    error: dict[int, list[Array]] = {k: [] for k in shots}
    inside: dict[int, list[Array]] = {k: [] for k in shots}
    for repeat in range(n_repeats):
        simulate = partial(
            make_treatment, N_SITES, heterogeneity=heterogeneity, confounding=confounding
        )
        size = max(shots) + N_QUERIES
        train = simulate(random_state=repeat)
        new = simulate(n_patients=(size, size), random_state=10_000 + repeat)
        place = np.arange(len(new.y)) % size
        query = place >= max(shots)
        truth = new.effect[query]
        model, pooled = None, np.empty(0)
        if method == OURS:
            model = fit_ours(train.X, train.y, train.treatment, groups=train.groups)
        elif method != BAYES:
            pooled = _effects(method, train.X, train.y, train.treatment, new.X[query])
        for k in shots:
            support = place < k
            effect = pooled
            if method == BAYES:
                effect, sd = new.bayes_effect(support, query)
                limits = effect[:, None] + np.array([-1, 1]) * 1.6449 * sd[:, None]
                inside[k].append(_inside(limits, truth, N_SITES))
            elif model is not None:
                rows = {"treatment": new.treatment[support], "groups": new.groups[support]}
                # some sites have patients of one arm, some rows are clipped
                with warnings.catch_warnings(action="ignore", category=DataWarning):
                    seen = new.X[support], new.y[support]
                    adapted = model.adapt(*seen, **rows) if k else model.unadapted()
                at: dict[str, Any] = {"X": new.X[query], "groups": new.groups[query]}
                effect = adapted.effect(**at)
                limits = adapted.effect_interval(**at, confidence_level=LEVEL)
                inside[k].append(_inside(limits, truth, N_SITES))
            squares = ((effect - truth) ** 2).reshape(N_SITES, -1)
            error[k].append(squares.mean(1))
    seconds = time.perf_counter() - start
    records = []
    for k in shots:
        record = partial(_over_sites, case=case, method=method, k=k, seconds=seconds)
        records.append(record(metric="pehe", by_site=np.concatenate(error[k])))
        if inside[k]:
            records.append(record(metric="coverage", by_site=np.concatenate(inside[k])))
    return records


def _effects(method: str, X: Array, y: Array, t: Index, X_new: Array) -> Array:
    """Effects estimated by a method that ignores tasks."""
    make = METHODS[method].make
    if make is None:
        return np.asarray(fit_ours(X, y, t).effect(X_new))
    return np.asarray(make().fit(X, y, t).effect(X_new))


@lru_cache(maxsize=1)
def _acic(instance: int) -> tuple[Array, Array, Index, Array]:
    """Features with indicators of categories, outcome, treatment, and true effect."""
    frame = load_frame("acic2016", instance=instance)
    features = frame[[name for name in frame.columns if name.startswith("x_")]]
    X = pd.get_dummies(features).to_numpy(np.float64)
    truth = (frame["mu1"] - frame["mu0"]).to_numpy(np.float64)
    return X, frame["y"].to_numpy(np.float64), frame["treatment"].to_numpy(np.int64), truth


def _errors(case: str, method: str, effect: Array, truth: Array, spread: float) -> list[Record]:
    """PEHE (root mean squared error of the effect), the same in its sd, and the ATE error."""
    pehe = float(np.sqrt(np.mean((effect - truth) ** 2)))
    values = {"pehe": pehe, "ate_error": abs(float(effect.mean() - truth.mean()))}
    if spread > 1e-6:
        values["pehe_sd"] = pehe / spread
    return [Record(SUITE, case, method, metric, value) for metric, value in values.items()]


def _over_sites(*, metric: str, by_site: Array, **about: Any) -> Record:
    """Mean over sites with its bootstrap interval; the square root for squared errors."""
    means = bootstrap_counts(len(by_site), 500, 0) @ by_site / len(by_site)
    values = np.array([by_site.mean(), *percentile_limits(means, 0.95)])
    value, low, high = (np.sqrt(values) if metric == "pehe" else values).tolist()
    n_tasks = len(by_site)
    return Record(SUITE, metric=metric, value=value, low=low, high=high, n_tasks=n_tasks, **about)


def _inside(limits: Array, truth: Array, n_sites: int) -> Array:
    """Coverage of the true effects in each site, (site,)."""
    covered = (limits[:, 0] <= truth) & (truth <= limits[:, 1])
    return np.asarray(covered.reshape(n_sites, -1).mean(1))
