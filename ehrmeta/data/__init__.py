"""Checked tables of many tasks: reading, meaning, splitting, encoding, bundled data sets."""

from ehrmeta.data.catalog import list_datasets, load_dataset, load_events, load_frame, read_card
from ehrmeta.data.clock import to_time
from ehrmeta.data.columns import read_column, read_columns
from ehrmeta.data.encode import Encoder, OutcomeScale
from ehrmeta.data.findings import Finding, Findings
from ehrmeta.data.labels import label_within, landmark_times, read_survival, survival_array
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
from ehrmeta.data.table import Table
from ehrmeta.data.tasks import (
    PatientKFold,
    TaskIndex,
    before,
    first_k,
    index_tasks,
    random_k,
    split_tasks,
)
from ehrmeta.data.validation import check_table

__all__ = [
    "Clock",
    "Cohorts",
    "DosedPatients",
    "Encoder",
    "Feature",
    "Finding",
    "Findings",
    "NofOnePatients",
    "Outcome",
    "OutcomeScale",
    "PatientKFold",
    "Schema",
    "Table",
    "TaskIndex",
    "TreatedSites",
    "before",
    "check_table",
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
