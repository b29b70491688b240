"""Estimators in the style of scikit-learn: fit, adapt, predict, score, save and load."""

from ehrmeta.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__)
