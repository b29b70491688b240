"""Dosing: dose response and one-compartment kinetics."""

from ehrmeta.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__)
