"""Treatment response: effects over many tasks, and of one more."""

from ehrmeta.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__)
