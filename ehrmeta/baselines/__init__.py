"""Opponents that every benchmark table carries: the same fit, adapt and predict."""

from ehrmeta.baselines.history_boosting import HistoryBoosting
from ehrmeta.baselines.last_value import LastValue
from ehrmeta.baselines.mixed_effects import MixedEffects
from ehrmeta.baselines.mixed_effects_logistic import MixedEffectsLogistic
from ehrmeta.baselines.mixed_process import MixedProcessEffects
from ehrmeta.baselines.population import PopulationBoosting
from ehrmeta.baselines.task_logistic import TaskLogistic
from ehrmeta.baselines.task_mean import TaskMean
from ehrmeta.baselines.task_ridge import TaskRidge
from ehrmeta.baselines.updated_classifier import UpdatedClassifier
from ehrmeta.baselines.updated_regressor import UpdatedRegressor

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
