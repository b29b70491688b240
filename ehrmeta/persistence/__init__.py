"""Model files: named tensors and JSON metadata, written atomically and verified on reading."""

from ehrmeta.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__)
