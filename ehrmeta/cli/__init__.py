"""Command line: options, and the code of each command, imported when the command runs."""

from ehrmeta.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__)
