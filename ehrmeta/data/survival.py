"""Times to an event as one array: scikit-survival's structured array, with codes for causes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ehrmeta.errors import DataError

__all__ = ["read_survival", "survival_array"]

_FIELDS = [("event", np.int64), ("time", np.float64)]


def survival_array(event: ArrayLike, time: ArrayLike) -> NDArray[Any]:
    """Put event codes and times into one structured array, the y of survival models.

    Parameters
    ----------
    event : array-like of bool or int, (row,)
        What ended the time: 0 (or False) nothing, the row is censored; 1 (or True) the event; 2 and
        above competing events.
    time : array-like of float, (row,)
        Since entry: since the prediction time, for a landmark analysis.

    Returns
    -------
    ndarray, (row,)
        With fields ``event`` and ``time``.

    Raises
    ------
    DataError
        Lengths differ, codes are no whole numbers from 0, a time is missing or negative, or an
        event stands at time 0: what happened by the time of entry is no outcome.

    Examples
    --------
    >>> survival_array([True, False], [2.5, 4.0])
    array([(1, 2.5), (0, 4. )], dtype=[('event', '<i8'), ('time', '<f8')])
    """
    codes, times = np.asarray(event), np.asarray(time)
    if codes.ndim != 1 or codes.shape != times.shape:
        raise DataError(f"event {codes.shape} and time {times.shape} must hold one value per row.")
    if codes.dtype.kind not in "biuf" or times.dtype.kind not in "iuf":
        raise DataError("event and time must hold numbers: a code from 0, and a time since entry.")
    codes, times = codes.astype(np.float64), times.astype(np.float64)
    _refuse(~np.isfinite(codes) | (codes < 0) | (codes % 1 != 0), "event is no whole number from 0")
    _refuse(~np.isfinite(times), "time is missing or infinite")
    _refuse(times < 0, "time is negative (it counts from entry)")
    _refuse((times == 0) & (codes > 0), "an event stands at time 0, so it came before entry")
    found = np.empty(len(codes), dtype=_FIELDS)
    found["event"], found["time"] = codes, times
    return found


def read_survival(y: Any) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Read a structured array as event codes and times, whatever its two fields are called.

    Raises
    ------
    DataError
        As `survival_array`, or y is no structured array.

    Examples
    --------
    >>> event, time = read_survival(survival_array([2, 0], [1, 3]))
    >>> event, time
    (array([2, 0]), array([1., 3.]))
    """
    y = np.asarray(y)
    if y.dtype.names is None or len(y.dtype.names) != 2:
        raise DataError(
            "y must be a structured array of event and time. Make one with "
            "survival_array(event, time)."
        )
    event, time = y.dtype.names
    checked = survival_array(y[event], y[time])
    return checked["event"], checked["time"]


def _refuse(bad: NDArray[np.bool_], what: str) -> None:
    if bad.any():
        raise DataError(
            f"{what} in {int(bad.sum()):,} of {len(bad):,} rows (first: row "
            f"{int(np.flatnonzero(bad)[0])}). Correct or leave out those rows."
        )
