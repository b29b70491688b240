"""Deep mixed effects: a neural mean with a mixed model and a process per task."""

from ehrmeta.algorithms.deep_mixed_effects.carry_forward import CarryForward
from ehrmeta.algorithms.deep_mixed_effects.model import DeepMixedEffects

__all__ = ["CarryForward", "DeepMixedEffects"]
