"""The scikit-learn face."""

from ehrmeta.estimators._base import adapt
from ehrmeta.estimators.adapted import Adapted
from ehrmeta.estimators.classifier import MetaClassifier
from ehrmeta.estimators.conformal import ConformalClassifier, ConformalRegressor
from ehrmeta.estimators.conformal_adapted import ConformalAdapted, ConformalClassAdapted
from ehrmeta.estimators.regressor import MetaRegressor
from ehrmeta.estimators.survival import DiscreteTimeHazard, landmark_posterior
from ehrmeta.estimators.task_model import TaskModel

__all__ = [
    "Adapted",
    "ConformalAdapted",
    "ConformalClassAdapted",
    "ConformalClassifier",
    "ConformalRegressor",
    "DiscreteTimeHazard",
    "MetaClassifier",
    "MetaRegressor",
    "TaskModel",
    "adapt",
    "landmark_posterior",
]
