"""Searching hyper-parameters with Optuna."""

from ehrmeta.tuning.search import Tuned, tune
from ehrmeta.tuning.search_cv import MetaSearchCV
from ehrmeta.tuning.space import read_space

__all__ = ["MetaSearchCV", "Tuned", "read_space", "tune"]
