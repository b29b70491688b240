"""Public names of this package, imported when they are first read."""

from ehrmeta.treatment.dosing.dose_response import (
    AdaptedDoses as AdaptedDoses,
    DoseResponse as DoseResponse,
)
from ehrmeta.treatment.dosing.one_compartment import (
    AdaptedCompartment as AdaptedCompartment,
    OneCompartment as OneCompartment,
)
