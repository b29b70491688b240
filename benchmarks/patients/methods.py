"""The methods of the patients benchmark, and how their settings are chosen.

Ours run at their defaults. A peer has a grid of two or three settings, from which each fold takes
the best on a quarter of its training patients after a fit on the others; no test patient is seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sklearn.ensemble import HistGradientBoostingRegressor

from benchmarks.patients.peers import GPBoost, HistoryLightGBM, StatsmodelsMixedLM
from ehrmeta.algorithms import MAML, BayesianHead, DeepMixedEffects, MetaSGD, NeuralProcess
from ehrmeta.baselines import (
    HistoryBoosting,
    LastValue,
    MixedEffects,
    MixedProcessEffects,
    PopulationBoosting,
    TaskMean,
    TaskRidge,
)
from ehrmeta.estimators import MetaRegressor
from ehrmeta.estimators._base import TaskRegressor

__all__ = ["METHODS", "MIXED_MODEL", "OURS", "POPULATION", "Method"]


@dataclass(frozen=True)
class Method:
    """A model and the settings that it may choose from.

    Parameters
    ----------
    model : TaskRegressor
    grid : sequence of mapping
        Parameters to set.
    package : str
        What must be installed beside this package.
    max_tasks : int, optional
        Training patients, drawn at random, of a method that is too slow for all.
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

POPULATION, MIXED_MODEL = "population", "mixed model, slope"
OURS = ("deep mixed effects", "deep mixed + boosting")

METHODS: dict[str, Method] = {
    "deep mixed effects": Method(_meta(DeepMixedEffects())),
    "deep mixed + boosting": Method(
        _meta(
            DeepMixedEffects(),
            population=HistGradientBoostingRegressor(
                learning_rate=0.05, max_leaf_nodes=8, random_state=0
            ),
        )
    ),
    "mixed + OU + LightGBM": Method(HistoryLightGBM(residual=True), _LIGHTGBM, "lightgbm"),
    "mixed + OU": Method(MixedProcessEffects(), ({"random_slope": True}, {"random_slope": False})),
    MIXED_MODEL: Method(MixedEffects(), ({"reml": True}, {"reml": False})),
    "mixed, statsmodels": Method(StatsmodelsMixedLM(), package="statsmodels", max_tasks=1000),
    "GPBoost": Method(
        GPBoost(),
        (
            {"as_of": False, "n_trees": 20},
            {"as_of": False, "n_trees": 100},
            {"as_of": True, "n_trees": 100},
        ),
        "gpboost",
    ),
    "LightGBM on history": Method(HistoryLightGBM(), _LIGHTGBM, "lightgbm"),
    "boosting on history": Method(HistoryBoosting(), _LEAVES),
    "neural process": Method(_meta(NeuralProcess(), batch_size=128), _RATES),
    "Bayesian head": Method(_meta(BayesianHead(), batch_size=128), _RATES),
    "Meta-SGD": Method(_meta(MetaSGD(), batch_size=64), _INNER),
    "MAML": Method(_meta(MAML(), batch_size=64), _INNER),
    "per-patient ridge": Method(TaskRidge(), tuple({"penalty": p} for p in (1.0, 10.0, 100.0))),
    "patient mean": Method(TaskMean()),
    "last value": Method(LastValue()),
    POPULATION: Method(PopulationBoosting(), _LEAVES),
}
