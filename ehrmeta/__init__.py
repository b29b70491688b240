"""Meta-learning for patients and cohorts: learn over many, adapt to one more from a few rows.

Data: `load_dataset`, `Table`, `Schema`. Models: `MetaRegressor` and `MetaClassifier` with any
algorithm, `TreatmentResponse`. Scores and search: `k_shot_curve`, `KShotScorer`, `tune`. In rooms
of their own: `ehrmeta.baselines` (what to beat), `ehrmeta.evaluation` (scores of risks, regressions
and survival), `ehrmeta.report` (pictures and tables), `ehrmeta.algorithms` (the contract of a new
one) and `ehrmeta.errors`. The scripts in ``tutorials/`` begin with ``01_quickstart.py``.
"""

from ehrmeta.algorithms.registry import *
from ehrmeta.algorithms.registry import ALGORITHMS
from ehrmeta.data import (
    Clock,
    Feature,
    Outcome,
    PatientKFold,
    Schema,
    Table,
    check_table,
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
    ConformalClassifier,
    ConformalRegressor,
    DiscreteTimeHazard,
    MetaClassifier,
    MetaRegressor,
    adapt,
    landmark_posterior,
)
from ehrmeta.evaluation import KShotScorer, k_shot_curve
from ehrmeta.loading import load
from ehrmeta.nn import MLP, TorchModule
from ehrmeta.treatment import TreatmentResponse
from ehrmeta.tuning import MetaSearchCV, tune

__all__ = [
    "MLP",
    "Adapted",
    "Clock",
    "ConformalClassifier",
    "ConformalRegressor",
    "DiscreteTimeHazard",
    "Feature",
    "KShotScorer",
    "MetaClassifier",
    "MetaRegressor",
    "MetaSearchCV",
    "Outcome",
    "PatientKFold",
    "Schema",
    "Table",
    "TorchModule",
    "TreatmentResponse",
    "adapt",
    "check_table",
    "k_shot_curve",
    "label_within",
    "landmark_posterior",
    "landmark_times",
    "list_datasets",
    "load",
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
__all__ += [algorithm.__name__ for algorithm in ALGORITHMS.values()]
