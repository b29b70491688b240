"""The scikit-learn face."""

from ehrmeta.estimators.adapted import Adapted
from ehrmeta.estimators.classifier import MetaClassifier
from ehrmeta.estimators.conformal import ConformalRegressor
from ehrmeta.estimators.conformal_adapted import ConformalAdapted
from ehrmeta.estimators.conformal_class_adapted import ConformalClassAdapted
from ehrmeta.estimators.conformal_classifier import ConformalClassifier
from ehrmeta.estimators.hazard import DiscreteTimeHazard
from ehrmeta.estimators.landmark import landmark_posterior
from ehrmeta.estimators.pipeline import adapt
from ehrmeta.estimators.regressor import MetaRegressor

__all__ = [
    "Adapted",
    "ConformalAdapted",
    "ConformalClassAdapted",
    "ConformalClassifier",
    "ConformalRegressor",
    "DiscreteTimeHazard",
    "MetaClassifier",
    "MetaRegressor",
    "adapt",
    "landmark_posterior",
]
