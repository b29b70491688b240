"""Treatment response: effects over many tasks, and of one more."""

from ehrmeta.treatment.adapted import AdaptedResponse
from ehrmeta.treatment.adapted_doses import AdaptedDoses
from ehrmeta.treatment.diagnostics import Diagnostics, e_value, robustness_value
from ehrmeta.treatment.dose_response import DoseResponse
from ehrmeta.treatment.one_compartment import AdaptedCompartment, OneCompartment
from ehrmeta.treatment.policy import PolicyTree, PolicyValue
from ehrmeta.treatment.pooling import PooledEffect, pool_effects
from ehrmeta.treatment.ranking import Ranking
from ehrmeta.treatment.refuters import refute
from ehrmeta.treatment.response import TreatmentResponse
from ehrmeta.treatment.selection import EffectScorer

__all__ = [
    "AdaptedCompartment",
    "AdaptedDoses",
    "AdaptedResponse",
    "Diagnostics",
    "DoseResponse",
    "EffectScorer",
    "OneCompartment",
    "PolicyTree",
    "PolicyValue",
    "PooledEffect",
    "Ranking",
    "TreatmentResponse",
    "e_value",
    "pool_effects",
    "refute",
    "robustness_value",
]
