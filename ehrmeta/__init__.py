"""Meta-learning for patients and cohorts: learn over many, adapt to one more from a few rows."""

from ehrmeta.algorithms import MAML, DeepMixedEffects, MetaSGD
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
from ehrmeta.estimators import Adapted, MetaRegressor, adapt
from ehrmeta.evaluation import KShotScorer, k_shot_curve
from ehrmeta.nn import MLP, TorchModule

__all__ = [
    "MAML",
    "MLP",
    "Adapted",
    "Clock",
    "DeepMixedEffects",
    "Feature",
    "KShotScorer",
    "MetaRegressor",
    "MetaSGD",
    "Outcome",
    "PatientKFold",
    "Schema",
    "Table",
    "TorchModule",
    "adapt",
    "k_shot_curve",
    "list_datasets",
    "load_dataset",
    "make_sinusoid",
]
