"""Meta-learning algorithms, each written for one task; training runs them over many."""

from ehrmeta.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__)
