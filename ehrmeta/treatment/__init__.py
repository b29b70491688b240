"""Treatment effects and dose-response models, learned from many tasks, adapted to new ones."""

from ehrmeta.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__)
