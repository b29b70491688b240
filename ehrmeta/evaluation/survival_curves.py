"""Survival and cumulative incidence without a model: Kaplan-Meier and Aalen-Johansen."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ehrmeta.evaluation.event_times import EventTimes, read_event_times, read_horizon

__all__ = ["StepCurve", "aalen_johansen", "censoring_curve", "kaplan_meier"]

Array = NDArray[np.float64]


class StepCurve(NamedTuple):
    """A function that is constant between times, and steps at them."""

    start: float
    time: Array  # rising
    value: Array  # from each time on

    def at(self, times: Array) -> Array:
        """Value including the steps at these times."""
        return self._after(np.searchsorted(self.time, times, side="right"))

    def before(self, times: Array) -> Array:
        """Value just before these times."""
        return self._after(np.searchsorted(self.time, times, side="left"))

    def _after(self, steps: Any) -> Array:
        values: Array = np.concatenate([[self.start], self.value])[steps]
        return values


class _Counts(NamedTuple):
    """What happens at each distinct time, (time,)."""

    time: Array
    at_risk: Array  # in follow-up until then
    events: Array  # of any kind
    censored: Array


def _count(data: EventTimes) -> _Counts:
    time, place = np.unique(data.time, return_inverse=True)
    events = np.bincount(place[data.event > 0], minlength=len(time)).astype(np.float64)
    everyone = np.bincount(place, minlength=len(time)).astype(np.float64)
    at_risk = np.cumsum(everyone[::-1])[::-1]
    return _Counts(time, at_risk, events, everyone - events)


def kaplan_meier(y_true: Any, *, times: ArrayLike) -> Array:
    """Share of patients without any event by each time, under censoring.

    Parameters
    ----------
    y_true : structured array (row,)
        Of `survival_array`: `event` (0 censored) and `time`.
    times : (time,)
        Rising, within follow-up.

    Returns
    -------
    (time,)

    Examples
    --------
    >>> from ehrmeta.data.survival import survival_array
    >>> y = survival_array([1, 0, 1], [1, 2, 3])
    >>> kaplan_meier(y, times=[1, 2, 3]).round(3)
    array([0.667, 0.667, 0.   ])
    """
    data = read_event_times(y_true)
    return _event_free(data).at(read_horizon(data, times))


def aalen_johansen(y_true: Any, *, times: ArrayLike, cause: int = 1) -> Array:
    r"""Cumulative incidence of one kind of event where others compete.

    .. math:: F_c(t) = \sum_{t_j \le t} S(t_{j-1})\, d_{cj} / n_j

    with S the Kaplan-Meier curve of any event, :math:`d_{cj}` of :math:`n_j` patients at risk
    having an event of kind c at :math:`t_j`. One minus Kaplan-Meier with the others as censored
    overstates it: who has died of one cause cannot have the other any more.

    Parameters are those of `kaplan_meier`; `cause` is the kind of event.

    References
    ----------
    Aalen, Johansen (1978), doi:10.2307/4615704.

    Examples
    --------
    >>> from ehrmeta.data.survival import survival_array
    >>> y = survival_array([1, 2, 1], [1, 2, 3])
    >>> aalen_johansen(y, times=[1, 2, 3]).round(3)
    array([0.333, 0.333, 0.667])
    """
    data = read_event_times(y_true, cause=cause)
    at = read_horizon(data, times)
    counts = _count(data)
    place = np.searchsorted(counts.time, data.time[data.event == cause])
    of_cause = np.bincount(place, minlength=len(counts.time)).astype(np.float64)
    hazard: Array = np.divide(of_cause, counts.at_risk, dtype=np.float64)
    incidence: Array = np.cumsum(_event_free(data).before(counts.time) * hazard)
    return StepCurve(0.0, counts.time, incidence).at(at)


def _event_free(data: EventTimes) -> StepCurve:
    counts = _count(data)
    hazard: Array = counts.events / counts.at_risk
    return _product(counts.time, hazard)


def censoring_curve(data: EventTimes) -> StepCurve:
    """Share of patients not censored by each time; at one time events come before censoring."""
    counts = _count(data)
    left = counts.at_risk - counts.events
    hazard = np.divide(counts.censored, left, out=np.zeros_like(left), where=left > 0)
    return _product(counts.time, hazard)


def _product(time: Array, hazard: Array) -> StepCurve:
    return StepCurve(1.0, time, np.cumprod(1 - hazard, dtype=np.float64))
