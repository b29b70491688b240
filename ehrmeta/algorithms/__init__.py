"""Meta-learners: the mathematics of one task."""

from ehrmeta.algorithms._base import Algorithm, Params, Spec, State, part, query_loss
from ehrmeta.algorithms.deep_mixed_effects import DeepMixedEffects
from ehrmeta.algorithms.maml import MAML
from ehrmeta.algorithms.meta_sgd import MetaSGD

__all__ = [
    "MAML",
    "Algorithm",
    "DeepMixedEffects",
    "MetaSGD",
    "Params",
    "Spec",
    "State",
    "part",
    "query_loss",
]
