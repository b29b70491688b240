"""Methods of the patients benchmark, and the scores of one method on one fold of a data set.

Our methods run with default settings. Peers have a grid of two or three settings: in each fold the
best one on a quarter of the training patients is used, after a fit on the others.
"""

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from benchmarks.patients.data import load
from benchmarks.patients.peers import GPBoost, HistoryLightGBM, StatsmodelsMixedLM
from benchmarks.suite.cells import Fitted
from benchmarks.suite.fitting import Plan, prepared, subsample
from benchmarks.suite.task_scores import Scores, metric, score_split
from ehrmeta import baselines
from ehrmeta.algorithms import MAML, BayesianHead, DeepMixedEffects, MetaSGD, NeuralProcess
from ehrmeta.data import Table, first_k
from ehrmeta.errors import DataWarning, DivergenceError
from ehrmeta.estimators import MetaRegressor
from ehrmeta.estimators._base import TaskRegressor

SHOTS = (0, 1, 2, 3, 5, 10)
_MIN_TASKS = 10  # with query rows, for a k to be in the table
_FEW_TASKS = 100


@dataclass(frozen=True)
class TunedPlan(Plan):
    """Size of a run, and how peers choose their settings.

    Parameters
    ----------
    tuned : bool
        Whether peers choose from their grids, or use the first setting.
    steps_of_few : int
        Training steps with fewer than 100 patients.
    tuning_tasks, tuning_steps : int
        Maximum numbers of patients and training steps of a trial.
    """

    tuned: bool = True
    steps_of_few: int = 300
    tuning_tasks: int = 1500
    tuning_steps: int = 150


FULL = TunedPlan()
QUICK = TunedPlan(folds_run=1, max_tasks=400, max_steps=60, tuned=False)


@dataclass(frozen=True)
class Method:
    """A model and its grid of settings.

    Parameters
    ----------
    model : TaskRegressor
    grid : sequence of mapping
        Parameters to set.
    package : str
        Optional package that it requires.
    max_tasks : int, optional
        Maximum number of training patients, for slow methods.
    """

    model: TaskRegressor
    grid: Sequence[Mapping[str, Any]] = ({},)
    package: str = ""
    max_tasks: int | None = None


def _meta(algorithm: Any, **settings: Any) -> MetaRegressor:
    return MetaRegressor(algorithm, verbose=False, device="cpu", **settings)


_LEAVES = tuple({"max_leaf_nodes": n} for n in (4, 12, 31))
_LIGHTGBM = tuple({"num_leaves": n} for n in (4, 8, 24))
_RATES = tuple({"learning_rate": rate} for rate in (1e-3, 3e-3))
_INNER = tuple({"algorithm__inner_lr": rate} for rate in (0.01, 0.1))
_PENALTIES = tuple({"penalty": penalty} for penalty in (1.0, 10.0, 100.0))
_SLOPES = tuple({"random_slope": slope} for slope in (True, False))
_TREES = tuple({"as_of": a, "n_trees": n} for a, n in ((False, 20), (False, 100), (True, 100)))
_BOOSTING = HistGradientBoostingRegressor(learning_rate=0.05, max_leaf_nodes=8, random_state=0)

POPULATION, MIXED_MODEL = "population", "mixed model, slope"
OURS = ("deep mixed effects", "deep mixed + boosting")

METHODS: dict[str, Method] = {
    "deep mixed effects": Method(_meta(DeepMixedEffects())),
    "deep mixed + boosting": Method(_meta(DeepMixedEffects(), population=_BOOSTING)),
    "mixed + OU + LightGBM": Method(HistoryLightGBM(residual=True), _LIGHTGBM, "lightgbm"),
    "mixed + OU": Method(baselines.MixedProcessEffects(), _SLOPES),
    MIXED_MODEL: Method(baselines.MixedEffects(), ({"reml": True}, {"reml": False})),
    "mixed, statsmodels": Method(StatsmodelsMixedLM(), package="statsmodels", max_tasks=1000),
    "GPBoost": Method(GPBoost(), _TREES, "gpboost"),
    "LightGBM on history": Method(HistoryLightGBM(), _LIGHTGBM, "lightgbm"),
    "boosting on history": Method(baselines.HistoryBoosting(), _LEAVES),
    "neural process": Method(_meta(NeuralProcess(), batch_size=128), _RATES),
    "Bayesian head": Method(_meta(BayesianHead(), batch_size=128), _RATES),
    "Meta-SGD": Method(_meta(MetaSGD(), batch_size=64), _INNER),
    "MAML": Method(_meta(MAML(), batch_size=64), _INNER),
    "per-patient ridge": Method(baselines.TaskRidge(), _PENALTIES),
    "patient mean": Method(baselines.TaskMean()),
    "last value": Method(baselines.LastValue()),
    POPULATION: Method(baselines.PopulationBoosting(), _LEAVES),
}


def shots_of(table: Table) -> tuple[int, ...]:
    """Support sizes k for which enough patients have more than k rows."""
    return tuple(k for k in SHOTS if int(np.sum(table.tasks.sizes > k)) >= _MIN_TASKS)


def forecast(model: Any, table: Table, k: int) -> Scores | None:
    """Adapt to the first k rows of every task and score the later ones; None without any."""
    support, query = first_k(table.tasks, k, time=table.time, outcome_time=table.outcome_time)
    return score_split(model, table, support, query) if query.any() else None


def measure_forecasts(data_set: str, name: str, fold: int, plan: TunedPlan) -> Fitted:
    """Scores of one method on the test patients of one fold, by k."""
    method = METHODS[name]
    table = subsample(load(data_set), plan.max_tasks, plan.seed)
    shots = shots_of(table)
    train, test = list(table.kfold(plan.n_folds, random_state=plan.seed))[fold]
    train = subsample(train, method.max_tasks, fold)
    steps = plan.max_steps
    if steps is None and train.n_tasks < _FEW_TASKS:
        steps = plan.steps_of_few
    started = time.perf_counter()
    setting = _choose(method, train, shots, fold, plan)
    chosen = time.perf_counter()
    try:
        model = _fit(method, setting, train, fold, steps)
    except DivergenceError:
        return Fitted({}, note="diverged")
    fitted = time.perf_counter()
    by_k = {k: forecast(model, test, k) for k in shots}
    scores = {k: values for k, values in by_k.items() if values is not None}
    text = ", ".join(f"{name}={value}" for name, value in setting.items())
    return Fitted(scores, fitted - chosen, chosen - started, text)


def _choose(
    method: Method, train: Table, shots: Sequence[int], fold: int, plan: TunedPlan
) -> Mapping[str, Any]:
    """Setting with the smallest geometric mean error over k, on a quarter of `train`."""
    if len(method.grid) == 1 or not plan.tuned:
        return method.grid[0]
    inner, held_out = subsample(train, plan.tuning_tasks, fold).split(0.25, random_state=fold)
    losses = []
    for setting in method.grid:
        try:
            model = _fit(method, setting, inner, fold, plan.tuning_steps)
        except DivergenceError:
            losses.append(np.inf)
            continue
        scored = [forecast(model, held_out, k) for k in shots]
        errors = [metric(scores, "rmse_macro").value() for scores in scored if scores is not None]
        losses.append(float(np.mean(np.log(errors))))
    return method.grid[int(np.argmin(losses))]


def _fit(
    method: Method, setting: Mapping[str, Any], train: Table, seed: int, max_steps: int | None
) -> Any:
    model = prepared(method.model, seed, max_steps)
    model.set_params(**setting)
    with warnings.catch_warnings(action="ignore", category=DataWarning):  # models without saving
        return model.fit(train.X, train.y, groups=train.groups, time=train.time)
