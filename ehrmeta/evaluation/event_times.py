"""What the survival scores take: event times of at least one patient, and times within them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ehrmeta.data.survival import read_survival
from ehrmeta.errors import DataError
from ehrmeta.evaluation.metrics import finite

__all__ = ["EventTimes", "read_event_times", "read_horizon"]

Array = NDArray[np.float64]


class EventTimes(NamedTuple):
    """Checked follow-up of each patient, (row,)."""

    event: NDArray[np.int64]  # 0 censored, else the kind of event
    time: Array  # of the event or of the last contact


def read_event_times(y_true: Any, *, cause: int = 1) -> EventTimes:
    """Check the structured array of `survival_array` and the kind of event that is asked for."""
    data = EventTimes(*read_survival(y_true))
    if len(data.time) == 0:
        raise DataError("there are no event times: pass one row a patient.")
    if cause < 1 or cause != int(cause):
        raise DataError(f"cause is {cause}; events have codes from 1, 0 is censored.")
    return data


def read_horizon(data: EventTimes, times: Any) -> Array:
    """Check times at which a score is asked for: rising, from 0, within follow-up, (time,)."""
    at = np.atleast_1d(finite("times", times))
    if at.ndim != 1 or len(at) == 0 or np.any(np.diff(at) <= 0) or at[0] < 0:
        raise DataError("times must be rising and not negative.")
    last = data.time.max()
    if at[-1] > last:
        raise DataError(
            f"a horizon of {at[-1]:g} lies beyond the last follow-up time, {last:g}: nobody shows "
            "what happens until then. Ask for an earlier one."
        )
    return at
