"""Treatment response: effects over many tasks, and of one more."""

from ehrmeta.treatment.adapted_response import AdaptedResponse
from ehrmeta.treatment.diagnostics import Diagnostics, e_value, robustness_value
from ehrmeta.treatment.dosing.adapted_doses import AdaptedDoses
from ehrmeta.treatment.dosing.dose_response import DoseResponse
from ehrmeta.treatment.dosing.one_compartment import AdaptedCompartment, OneCompartment
from ehrmeta.treatment.effect_model import EffectModel
from ehrmeta.treatment.policy import PolicyTree, PolicyValue, Ranking
from ehrmeta.treatment.pooling import PooledEffect, pool_effects
from ehrmeta.treatment.refuters import refute
from ehrmeta.treatment.response import TreatmentResponse
from ehrmeta.treatment.selection import EffectScorer

__all__ = [
    "AdaptedCompartment",
    "AdaptedDoses",
    "AdaptedResponse",
    "Diagnostics",
    "DoseResponse",
    "EffectModel",
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
