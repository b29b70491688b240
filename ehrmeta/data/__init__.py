"""Checked tables of many tasks: reading, meaning, splitting, encoding, bundled data sets."""

from ehrmeta.data.catalog import list_datasets, load_dataset, load_events, load_frame, read_card
from ehrmeta.data.checks import Finding
from ehrmeta.data.clock import to_time
from ehrmeta.data.columns import read_column, read_columns
from ehrmeta.data.encode import Encoder
from ehrmeta.data.labels import label_within, landmark_times
from ehrmeta.data.outcome_scale import OutcomeScale
from ehrmeta.data.schema import Clock, Feature, Outcome, Schema
from ehrmeta.data.simulate import (
    Cohorts,
    DosedPatients,
    NofOnePatients,
    TreatedSites,
    make_cohorts,
    make_nof1,
    make_pk,
    make_sinusoid,
    make_treatment,
)
from ehrmeta.data.splits import PatientKFold, split_tasks
from ehrmeta.data.support import before, first_k, random_k
from ehrmeta.data.survival import read_survival, survival_array
from ehrmeta.data.table import Table
from ehrmeta.data.tasks import TaskIndex, index_tasks

__all__ = [
    "Clock",
    "Cohorts",
    "DosedPatients",
    "Encoder",
    "Feature",
    "Finding",
    "NofOnePatients",
    "Outcome",
    "OutcomeScale",
    "PatientKFold",
    "Schema",
    "Table",
    "TaskIndex",
    "TreatedSites",
    "before",
    "first_k",
    "index_tasks",
    "label_within",
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
    "random_k",
    "read_card",
    "read_column",
    "read_columns",
    "read_survival",
    "split_tasks",
    "survival_array",
    "to_time",
]
