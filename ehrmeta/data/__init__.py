"""Tables of many tasks: reading, checking, splitting, encoding, and bundled data sets."""

from ehrmeta.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__)
