"""Registry of algorithms: one import line adds an algorithm to the whole package.

The package's exports, the command line's ``--algorithm``, model files, the contract tests and the
benchmarks all read `ALGORITHMS`. ``import X as X`` marks a name as public, for type checkers too.
`_EXAMPLE` is appended to the docstring of an algorithm without an example.
"""

from inspect import cleandoc as _cleandoc
from re import sub as _sub

from ehrmeta.algorithms import _base
from ehrmeta.algorithms.above_mixed_model import AboveMixedModel as AboveMixedModel
from ehrmeta.algorithms.anil import ANIL as ANIL
from ehrmeta.algorithms.bayesian_head import BayesianHead as BayesianHead
from ehrmeta.algorithms.comparators import (
    FineTune as FineTune,
    PerTask as PerTask,
    Population as Population,
)
from ehrmeta.algorithms.deep_mixed_effects.carry_forward import CarryForward as CarryForward
from ehrmeta.algorithms.deep_mixed_effects.model import DeepMixedEffects as DeepMixedEffects
from ehrmeta.algorithms.learned_optimizer import LearnedOptimizer as LearnedOptimizer
from ehrmeta.algorithms.maml import MAML as MAML, MetaCurvature as MetaCurvature, MetaSGD as MetaSGD
from ehrmeta.algorithms.matching import MatchingNet as MatchingNet
from ehrmeta.algorithms.meta_networks import MetaNetworks as MetaNetworks
from ehrmeta.algorithms.neural_process import NeuralProcess as NeuralProcess
from ehrmeta.algorithms.prototypical import PrototypicalNet as PrototypicalNet
from ehrmeta.algorithms.relation import RelationNet as RelationNet
from ehrmeta.algorithms.reptile import Reptile as Reptile

ALGORITHMS: dict[str, type[_base.Algorithm]] = {
    _sub("(?<=[a-z])(?=[A-Z])", "-", name).lower(): value
    for name, value in list(vars().items())
    if isinstance(value, type) and issubclass(value, _base.Algorithm)
}
"""Every algorithm of the package, by its name on the command line, such as ``meta-sgd``."""

_EXAMPLE = """

Examples
--------
>>> from ehrmeta import {name}, MetaRegressor, make_sinusoid
>>> X, y, groups = make_sinusoid(n_tasks=50, n_points=10, random_state=0)
>>> model = MetaRegressor({name}(), max_steps=20, random_state=0)
>>> model = model.fit(X, y, groups=groups)
>>> model.adapt(X[10:15], y[10:15]).predict(X[15:20]).shape
(5,)
"""
for _algorithm in ALGORITHMS.values():
    if "\nExamples\n" not in (_doc := _cleandoc(_algorithm.__doc__ or "")):
        _algorithm.__doc__ = _doc + _EXAMPLE.format(name=_algorithm.__name__)
