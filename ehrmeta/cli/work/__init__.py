"""Bodies of the commands, imported once the options have been read."""

from ehrmeta.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__)
