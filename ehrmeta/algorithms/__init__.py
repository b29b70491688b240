"""Meta-learners: the mathematics of one task."""

from ehrmeta.algorithms._base import Algorithm, Params, Spec, State, part, query_loss
from ehrmeta.algorithms.anil import ANIL
from ehrmeta.algorithms.bayesian_head import BayesianHead
from ehrmeta.algorithms.deep_mixed_effects.carry_forward import CarryForward
from ehrmeta.algorithms.deep_mixed_effects.model import DeepMixedEffects
from ehrmeta.algorithms.fine_tune import FineTune
from ehrmeta.algorithms.learned_optimizer import LearnedOptimizer
from ehrmeta.algorithms.maml import MAML, MetaSGD
from ehrmeta.algorithms.matching import MatchingNet
from ehrmeta.algorithms.meta_curvature import MetaCurvature
from ehrmeta.algorithms.meta_networks import MetaNetworks
from ehrmeta.algorithms.neural_process import NeuralProcess
from ehrmeta.algorithms.per_task import PerTask
from ehrmeta.algorithms.population import Population
from ehrmeta.algorithms.prototypical import PrototypicalNet
from ehrmeta.algorithms.relation import RelationNet
from ehrmeta.algorithms.reptile import Reptile

__all__ = [
    "ANIL",
    "MAML",
    "Algorithm",
    "BayesianHead",
    "CarryForward",
    "DeepMixedEffects",
    "FineTune",
    "LearnedOptimizer",
    "MatchingNet",
    "MetaCurvature",
    "MetaNetworks",
    "MetaSGD",
    "NeuralProcess",
    "Params",
    "PerTask",
    "Population",
    "PrototypicalNet",
    "RelationNet",
    "Reptile",
    "Spec",
    "State",
    "part",
    "query_loss",
]
