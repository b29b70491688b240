"""Meta-training: episodes, gradients, held-out tasks, checkpoints and the training loop."""

from ehrmeta.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__)
