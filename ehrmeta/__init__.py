"""Meta-learning for patients and cohorts: learn over many, adapt to one more from a few rows."""

from ehrmeta.algorithms import MAML, MetaSGD
from ehrmeta.estimators import Adapted, MetaRegressor
from ehrmeta.nn import MLP, TorchModule

__all__ = ["MAML", "MLP", "Adapted", "MetaRegressor", "MetaSGD", "TorchModule"]
