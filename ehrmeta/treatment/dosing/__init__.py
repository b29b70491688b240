"""Dosing: dose response and one-compartment kinetics."""

from ehrmeta.treatment.dosing.adapted_doses import AdaptedDoses
from ehrmeta.treatment.dosing.dose_response import DoseResponse
from ehrmeta.treatment.dosing.one_compartment import AdaptedCompartment, OneCompartment

__all__ = ["AdaptedCompartment", "AdaptedDoses", "DoseResponse", "OneCompartment"]
