"""Reports, tables and figures on fitted models."""

from ehrmeta.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__)
