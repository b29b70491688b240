"""Scores of forecasts and risks, averaged over patients, and protocols to compute them."""

from ehrmeta.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__)
