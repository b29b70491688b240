"""The work of the commands, imported when a command has read its options."""

from ehrmeta.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__)
