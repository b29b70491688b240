"""Pure tensor functions: batches, networks, fast weights, likelihoods."""

from ehrmeta.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__)
