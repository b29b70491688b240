"""Treatment response: effects over many tasks, and of one more."""

from ehrmeta.treatment.adapted import AdaptedResponse
from ehrmeta.treatment.response import TreatmentResponse

__all__ = ["AdaptedResponse", "TreatmentResponse"]
