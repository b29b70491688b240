"""Public names of this package, imported when they are first read."""

from ehrmeta.treatment.adapted_response import AdaptedResponse as AdaptedResponse
from ehrmeta.treatment.diagnostics import (
    Diagnostics as Diagnostics,
    e_value as e_value,
    robustness_value as robustness_value,
)
from ehrmeta.treatment.dosing.dose_response import (
    AdaptedDoses as AdaptedDoses,
    DoseResponse as DoseResponse,
)
from ehrmeta.treatment.dosing.one_compartment import (
    AdaptedCompartment as AdaptedCompartment,
    OneCompartment as OneCompartment,
)
from ehrmeta.treatment.effect_model import EffectModel as EffectModel
from ehrmeta.treatment.model_checks import EffectScorer as EffectScorer, refute as refute
from ehrmeta.treatment.policy import (
    PolicyTree as PolicyTree,
    PolicyValue as PolicyValue,
    Ranking as Ranking,
)
from ehrmeta.treatment.response import TreatmentResponse as TreatmentResponse
from ehrmeta.treatment.row_scores import PooledEffect as PooledEffect, pool_effects as pool_effects
