"""Deep mixed effects: a neural mean with a mixed model and a process per task."""

from ehrmeta.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__)
