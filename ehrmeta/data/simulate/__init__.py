"""Simulated tasks, the truth attached."""

from ehrmeta.data.simulate.cohorts import Cohorts, make_cohorts
from ehrmeta.data.simulate.dosing import DosedPatients, make_pk
from ehrmeta.data.simulate.nof1 import NofOnePatients, make_nof1
from ehrmeta.data.simulate.sinusoid import make_sinusoid
from ehrmeta.data.simulate.treatment import TreatedSites, make_treatment

__all__ = [
    "Cohorts",
    "DosedPatients",
    "NofOnePatients",
    "TreatedSites",
    "make_cohorts",
    "make_nof1",
    "make_pk",
    "make_sinusoid",
    "make_treatment",
]
