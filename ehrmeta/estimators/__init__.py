"""The scikit-learn face."""

from ehrmeta.estimators.adapted import Adapted
from ehrmeta.estimators.classifier import MetaClassifier
from ehrmeta.estimators.pipeline import adapt
from ehrmeta.estimators.regressor import MetaRegressor

__all__ = ["Adapted", "MetaClassifier", "MetaRegressor", "adapt"]
