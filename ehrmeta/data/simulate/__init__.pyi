"""Public names of this package, imported when they are first read."""

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
