"""Opponents that every benchmark table carries: the same fit, adapt and predict."""

from ehrmeta.baselines.boosting import PopulationBoosting
from ehrmeta.baselines.history import HistoryBoosting
from ehrmeta.baselines.mixed_effects import MixedEffects, MixedEffectsLogistic, MixedProcessEffects
from ehrmeta.baselines.own_rows import LastValue, TaskLogistic, TaskMean, TaskRidge
from ehrmeta.baselines.updating import UpdatedClassifier, UpdatedRegressor

__all__ = [
    "HistoryBoosting",
    "LastValue",
    "MixedEffects",
    "MixedEffectsLogistic",
    "MixedProcessEffects",
    "PopulationBoosting",
    "TaskLogistic",
    "TaskMean",
    "TaskRidge",
    "UpdatedClassifier",
    "UpdatedRegressor",
]
