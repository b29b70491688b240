"""Scoring of whole tables and folders, and predictions over HTTP."""

from ehrmeta.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__)
