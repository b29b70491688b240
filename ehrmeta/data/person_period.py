"""Times to an event as person-period rows: one row per person and interval under observation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ehrmeta.errors import DataError

__all__ = ["PersonPeriods", "interval_edges", "person_period"]

Array = NDArray[np.float64]


class PersonPeriods(NamedTuple):
    """Person-period rows, all of a person's in turn."""

    person: NDArray[np.int64]  # (row,)
    interval: NDArray[np.int64]  # (row,)
    event: NDArray[np.int64]  # (row,) what happened in the interval: 0 nothing, else its code


def interval_edges(intervals: int | ArrayLike, time: Array) -> Array:
    """Ends of intervals from 0 to the last time, or those given, (interval + 1,).

    Parameters
    ----------
    intervals : int or array-like
        A number of intervals of equal length, or all edges, of which the first is 0.
    time : (person,)

    Examples
    --------
    >>> interval_edges(4, np.array([1.0, 10.0]))
    array([ 0. ,  2.5,  5. ,  7.5, 10. ])
    """
    if np.ndim(intervals) == 0:
        number = np.asarray(intervals)
        if number.dtype.kind not in "iuf" or number < 1 or number % 1 != 0:
            raise DataError(
                f"intervals must be a whole number from 1, or edges; got {intervals!r}."
            )
        if len(time) == 0 or time.max() == 0:
            raise DataError("nobody is followed beyond time 0, so there is no interval.")
        return np.linspace(0.0, time.max(), int(number) + 1)
    edges = np.asarray(intervals, dtype=np.float64)
    if len(edges) < 2 or edges[0] != 0 or not np.all(np.diff(edges) > 0):
        raise DataError("the edges of intervals must increase from 0.")
    return edges


def person_period(event: ArrayLike, time: ArrayLike, edges: ArrayLike) -> PersonPeriods:
    """Split every person's time at the edges ``0 = e_0 < e_1 < ... < e_J``.

    Interval j is ``(e_j, e_(j+1)]``. A person has a row for every interval up to the one of the
    event; who is censored within an interval has a row for it if half of it was watched. With an
    edge at every time, the share of rows with an event is the hazard of Kaplan-Meier and
    Aalen-Johansen. What happens after the last edge is not seen.

    Parameters
    ----------
    event, time : (person,)
        As in `survival_array`.
    edges : (interval + 1,)

    References
    ----------
    Tutz, Schmid (2016), doi:10.1007/978-3-319-28158-2.

    Examples
    --------
    >>> rows = person_period([1, 0], [1.5, 0.8], edges=[0, 1, 2, 3])
    >>> rows.person, rows.interval, rows.event
    (array([0, 0, 1]), array([0, 1, 0]), array([0, 1, 0]))
    """
    code, times = np.asarray(event, dtype=np.int64), np.asarray(time, dtype=np.float64)
    edges = np.asarray(edges, dtype=np.float64)
    seen = (code > 0) & (times <= edges[-1])
    at = np.searchsorted(edges[1:], times, side="left")  # the interval that the time lies in
    middles = 0.5 * (edges[:-1] + edges[1:])
    watched = np.searchsorted(middles, times, side="right")  # intervals watched for half or more
    n_rows = np.where(seen, at + 1, watched)
    person = np.repeat(np.arange(len(times)), n_rows)
    interval = np.arange(len(person)) - np.repeat(np.cumsum(n_rows) - n_rows, n_rows)
    happened = np.where(seen[person] & (interval == at[person]), code[person], 0)
    return PersonPeriods(person, interval, happened)
