"""Opponents that every benchmark table carries: the same fit, adapt and predict."""

from ehrmeta.baselines.history_boosting import HistoryBoosting
from ehrmeta.baselines.last_value import LastValue
from ehrmeta.baselines.mixed_effects import MixedEffects
from ehrmeta.baselines.mixed_process import MixedProcessEffects
from ehrmeta.baselines.population import PopulationBoosting
from ehrmeta.baselines.task_mean import TaskMean
from ehrmeta.baselines.task_ridge import TaskRidge

__all__ = [
    "HistoryBoosting",
    "LastValue",
    "MixedEffects",
    "MixedProcessEffects",
    "PopulationBoosting",
    "TaskMean",
    "TaskRidge",
]
