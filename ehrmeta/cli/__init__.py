"""The command line: its options, and the work of every command, imported when it is called."""

from ehrmeta.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__)
