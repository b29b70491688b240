"""Scores averaged over patients, and the protocols that produce them."""

from ehrmeta.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__)
