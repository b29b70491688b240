"""Checked tables of many tasks: reading, meaning, splitting, encoding, bundled data sets."""

from ehrmeta.data.clock import to_time
from ehrmeta.data.columns import read_column, read_columns
from ehrmeta.data.encode import Encoder, OutcomeScale
from ehrmeta.data.schema import Clock, Feature, Outcome, Schema
from ehrmeta.data.tasks import (
    PatientKFold,
    TaskIndex,
    before,
    first_k,
    index_tasks,
    random_k,
    split_tasks,
)

__all__ = [
    "Clock",
    "Encoder",
    "Feature",
    "Outcome",
    "OutcomeScale",
    "PatientKFold",
    "Schema",
    "TaskIndex",
    "before",
    "first_k",
    "index_tasks",
    "random_k",
    "read_column",
    "read_columns",
    "split_tasks",
    "to_time",
]
