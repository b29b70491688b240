"""Public names of this package, imported when they are first read."""

from ehrmeta.algorithms.deep_mixed_effects.carry_forward import CarryForward as CarryForward
from ehrmeta.algorithms.deep_mixed_effects.model import DeepMixedEffects as DeepMixedEffects
