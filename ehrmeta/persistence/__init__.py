"""The model file: named tensors and their settings, written whole and checked before use."""

from ehrmeta.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__)
