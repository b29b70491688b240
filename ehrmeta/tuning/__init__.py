"""Hyper-parameter search with Optuna."""

from ehrmeta.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__)
