"""Meta-learning for patients and cohorts: learn over many, adapt to one more from a few rows.

Data: `load_dataset`, `Table`, `Schema`. Models: `MetaRegressor` and `MetaClassifier` with any
algorithm, `TreatmentResponse`. Scores and search: `k_shot_curve`, `KShotScorer`, `tune`. In rooms
of their own: `ehrmeta.baselines` (what to beat), `ehrmeta.evaluation` (scores of risks, regressions
and survival), `ehrmeta.report` (pictures and tables), `ehrmeta.algorithms` (the contract of a new
one) and `ehrmeta.errors`. The scripts in ``tutorials/`` begin with ``01_quickstart.py``.
"""

from ehrmeta.algorithms import (
    ANIL,
    MAML,
    BayesianHead,
    CarryForward,
    DeepMixedEffects,
    FineTune,
    LearnedOptimizer,
    MatchingNet,
    MetaCurvature,
    MetaNetworks,
    MetaSGD,
    NeuralProcess,
    PerTask,
    Population,
    PrototypicalNet,
    RelationNet,
    Reptile,
)
from ehrmeta.data import (
    Clock,
    Feature,
    Outcome,
    PatientKFold,
    Schema,
    Table,
    label_within,
    landmark_times,
    list_datasets,
    load_dataset,
    load_events,
    load_frame,
    make_cohorts,
    make_nof1,
    make_pk,
    make_sinusoid,
    make_treatment,
    survival_array,
)
from ehrmeta.estimators import (
    Adapted,
    ConformalRegressor,
    DiscreteTimeHazard,
    MetaClassifier,
    MetaRegressor,
    adapt,
    landmark_posterior,
)
from ehrmeta.evaluation import KShotScorer, k_shot_curve
from ehrmeta.nn import MLP, TorchModule
from ehrmeta.treatment import TreatmentResponse
from ehrmeta.tuning import MetaSearchCV, tune

__all__ = [
    "ANIL",
    "MAML",
    "MLP",
    "Adapted",
    "BayesianHead",
    "CarryForward",
    "Clock",
    "ConformalRegressor",
    "DeepMixedEffects",
    "DiscreteTimeHazard",
    "Feature",
    "FineTune",
    "KShotScorer",
    "LearnedOptimizer",
    "MatchingNet",
    "MetaClassifier",
    "MetaCurvature",
    "MetaNetworks",
    "MetaRegressor",
    "MetaSGD",
    "MetaSearchCV",
    "NeuralProcess",
    "Outcome",
    "PatientKFold",
    "PerTask",
    "Population",
    "PrototypicalNet",
    "RelationNet",
    "Reptile",
    "Schema",
    "Table",
    "TorchModule",
    "TreatmentResponse",
    "adapt",
    "k_shot_curve",
    "label_within",
    "landmark_posterior",
    "landmark_times",
    "list_datasets",
    "load_dataset",
    "load_events",
    "load_frame",
    "make_cohorts",
    "make_nof1",
    "make_pk",
    "make_sinusoid",
    "make_treatment",
    "survival_array",
    "tune",
]
