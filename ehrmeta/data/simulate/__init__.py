"""Simulated tasks, the truth attached."""

from ehrmeta.data.simulate.cohorts import Cohorts, make_cohorts
from ehrmeta.data.simulate.sinusoid import make_sinusoid

__all__ = ["Cohorts", "make_cohorts", "make_sinusoid"]
