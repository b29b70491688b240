"""Meta-learners: the mathematics of one task."""

from ehrmeta.algorithms._base import Algorithm, Params, Spec, State, part, query_loss
from ehrmeta.algorithms.registry import *
from ehrmeta.algorithms.registry import ALGORITHMS

__all__ = ["ALGORITHMS", "Algorithm", "Params", "Spec", "State", "part", "query_loss"]
__all__ += [algorithm.__name__ for algorithm in ALGORITHMS.values()]
