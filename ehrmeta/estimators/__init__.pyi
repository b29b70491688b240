"""Public names of this package, imported when they are first read."""

from ehrmeta.estimators._base import adapt as adapt
from ehrmeta.estimators.adapted import Adapted as Adapted
from ehrmeta.estimators.classifier import MetaClassifier as MetaClassifier
from ehrmeta.estimators.conformal import (
    ConformalClassifier as ConformalClassifier,
    ConformalRegressor as ConformalRegressor,
)
from ehrmeta.estimators.conformal_adapted import (
    ConformalAdapted as ConformalAdapted,
    ConformalClassAdapted as ConformalClassAdapted,
)
from ehrmeta.estimators.regressor import MetaRegressor as MetaRegressor
from ehrmeta.estimators.survival import (
    DiscreteTimeHazard as DiscreteTimeHazard,
    landmark_posterior as landmark_posterior,
)
from ehrmeta.estimators.task_model import TaskModel as TaskModel
