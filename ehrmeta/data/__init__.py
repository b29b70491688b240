"""Checked tables of many tasks: reading, meaning, splitting, encoding, bundled data sets."""

from ehrmeta.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__)
