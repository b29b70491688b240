"""Meta-learning for patients and cohorts: learn over many, adapt to one more from a few rows."""

from ehrmeta.algorithms import (
    ANIL,
    MAML,
    DeepMixedEffects,
    FineTune,
    LearnedOptimizer,
    MetaCurvature,
    MetaNetworks,
    MetaSGD,
    PerTask,
    Population,
    Reptile,
)
from ehrmeta.data import (
    Clock,
    Feature,
    Outcome,
    PatientKFold,
    Schema,
    Table,
    list_datasets,
    load_dataset,
    make_sinusoid,
)
from ehrmeta.estimators import Adapted, MetaClassifier, MetaRegressor, adapt
from ehrmeta.evaluation import KShotScorer, k_shot_curve
from ehrmeta.nn import MLP, TorchModule

__all__ = [
    "ANIL",
    "MAML",
    "MLP",
    "Adapted",
    "Clock",
    "DeepMixedEffects",
    "Feature",
    "FineTune",
    "KShotScorer",
    "LearnedOptimizer",
    "MetaClassifier",
    "MetaCurvature",
    "MetaNetworks",
    "MetaRegressor",
    "MetaSGD",
    "Outcome",
    "PatientKFold",
    "PerTask",
    "Population",
    "Reptile",
    "Schema",
    "Table",
    "TorchModule",
    "adapt",
    "k_shot_curve",
    "list_datasets",
    "load_dataset",
    "make_sinusoid",
]
