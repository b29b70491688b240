"""Public names of this package, imported when they are first read."""

from ehrmeta.algorithms._base import (
    Algorithm as Algorithm,
    Params as Params,
    Spec as Spec,
    State as State,
    part as part,
    query_loss as query_loss,
    support_loss as support_loss,
)
from ehrmeta.algorithms.registry import *
