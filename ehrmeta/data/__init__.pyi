"""Public names of this package, imported when they are first read."""

from ehrmeta.data.catalog import (
    list_datasets as list_datasets,
    load_dataset as load_dataset,
    load_events as load_events,
    load_frame as load_frame,
    read_card as read_card,
)
from ehrmeta.data.clock import to_time as to_time
from ehrmeta.data.columns import read_column as read_column, read_columns as read_columns
from ehrmeta.data.encode import Encoder as Encoder
from ehrmeta.data.findings import Finding as Finding, Findings as Findings
from ehrmeta.data.labels import (
    label_within as label_within,
    landmark_times as landmark_times,
    read_survival as read_survival,
    survival_array as survival_array,
)
from ehrmeta.data.outcome_scale import OutcomeScale as OutcomeScale, Warp as Warp
from ehrmeta.data.schema import (
    Clock as Clock,
    Feature as Feature,
    Outcome as Outcome,
    Schema as Schema,
)
from ehrmeta.data.simulate.cohorts import (
    Cohorts as Cohorts,
    make_cohorts as make_cohorts,
    make_sinusoid as make_sinusoid,
)
from ehrmeta.data.simulate.dosing import DosedPatients as DosedPatients, make_pk as make_pk
from ehrmeta.data.simulate.nof1 import NofOnePatients as NofOnePatients, make_nof1 as make_nof1
from ehrmeta.data.simulate.treatment import (
    TreatedSites as TreatedSites,
    make_treatment as make_treatment,
)
from ehrmeta.data.table import Table as Table
from ehrmeta.data.table_file import read_frame as read_frame
from ehrmeta.data.tasks import (
    PatientKFold as PatientKFold,
    TaskIndex as TaskIndex,
    before as before,
    first_k as first_k,
    index_tasks as index_tasks,
    random_k as random_k,
    split_tasks as split_tasks,
)
from ehrmeta.data.validation import check_table as check_table
