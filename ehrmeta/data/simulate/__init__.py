"""Simulated tasks, the truth attached."""

from ehrmeta.data.simulate.cohorts import Cohorts, make_cohorts
from ehrmeta.data.simulate.sinusoid import make_sinusoid
from ehrmeta.data.simulate.treatment import TreatedSites, make_treatment

__all__ = ["Cohorts", "TreatedSites", "make_cohorts", "make_sinusoid", "make_treatment"]
