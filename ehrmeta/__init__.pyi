"""Public names of this package, imported when they are first read."""

from ehrmeta.algorithms.registry import *
from ehrmeta.data.catalog import (
    list_datasets as list_datasets,
    load_dataset as load_dataset,
    load_events as load_events,
    load_frame as load_frame,
)
from ehrmeta.data.labels import (
    label_within as label_within,
    landmark_times as landmark_times,
    survival_array as survival_array,
)
from ehrmeta.data.schema import (
    Clock as Clock,
    Feature as Feature,
    Outcome as Outcome,
    Schema as Schema,
)
from ehrmeta.data.simulate.cohorts import (
    make_cohorts as make_cohorts,
    make_sinusoid as make_sinusoid,
)
from ehrmeta.data.simulate.dosing import make_pk as make_pk
from ehrmeta.data.simulate.nof1 import make_nof1 as make_nof1
from ehrmeta.data.simulate.treatment import make_treatment as make_treatment
from ehrmeta.data.table import Table as Table
from ehrmeta.data.tasks import PatientKFold as PatientKFold
from ehrmeta.data.validation import check_table as check_table
from ehrmeta.estimators._base import adapt as adapt
from ehrmeta.estimators.adapted import Adapted as Adapted
from ehrmeta.estimators.classifier import MetaClassifier as MetaClassifier
from ehrmeta.estimators.conformal import (
    ConformalClassifier as ConformalClassifier,
    ConformalRegressor as ConformalRegressor,
)
from ehrmeta.estimators.regressor import MetaRegressor as MetaRegressor
from ehrmeta.estimators.survival import (
    DiscreteTimeHazard as DiscreteTimeHazard,
    landmark_posterior as landmark_posterior,
)
from ehrmeta.evaluation.k_shot import KShotScorer as KShotScorer, k_shot_curve as k_shot_curve
from ehrmeta.loading import load as load
from ehrmeta.nn.backbone import TorchModule as TorchModule
from ehrmeta.nn.mlp import MLP as MLP
from ehrmeta.serving.score import score_partition as score_partition
from ehrmeta.treatment.response import TreatmentResponse as TreatmentResponse
from ehrmeta.tuning.search import tune as tune
from ehrmeta.tuning.search_cv import MetaSearchCV as MetaSearchCV
