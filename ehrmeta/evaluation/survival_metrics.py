"""Scores of risks by a horizon, where some patients were not followed so long and events compete.

Patients whose status at the horizon is known stand for those lost before: they weigh the inverse of
their probability not to be censored (IPCW). `labels_at` gives these labels and weights, with which
every score of risks works: ``risk_scores(label, risk, sample_weight=weight)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ehrmeta.errors import DataError
from ehrmeta.evaluation.discrimination import auroc
from ehrmeta.evaluation.event_times import EventTimes, read_event_times, read_horizon
from ehrmeta.evaluation.metrics import finite
from ehrmeta.evaluation.survival_curves import StepCurve, censoring_curve

__all__ = [
    "integrated_survival_brier",
    "labels_at",
    "survival_auroc",
    "survival_brier",
]

Array = NDArray[np.float64]


def labels_at(
    y_true: Any, *, horizon: float, cause: int = 1, y_train: Any = None
) -> tuple[Array, Array]:
    r"""Who has had the event by a horizon, with censoring weights.

    With G the Kaplan-Meier curve of censoring and h the horizon:

    - an event at :math:`T \le h`: weight :math:`1 / G(T-)`, label 1 if it is of the kind `cause`,
      else 0: after a competing event it will not come any more;
    - followed to h without event: label 0, weight :math:`1 / G(h-)`;
    - censored before h: weight 0.

    Censoring may depend on nothing that the outcome depends on. At equal times events come first.

    Parameters
    ----------
    y_true : structured array (row,)
        Of `survival_array`: `event` (0 censored, else the kind of event) and `time`.
    horizon : float
        In the unit of `time`.
    cause : int
        The event in question.
    y_train : structured array, optional
        Whose censoring G is; by default that of `y_true`.

    Returns
    -------
    label, weight : (row,)

    Raises
    ------
    DataError
        A horizon beyond follow-up, here or in `y_train`.

    References
    ----------
    Graf et al. (1999), Statistics in Medicine 18:2529-2545.
    Schoop et al. (2011), doi:10.1002/bimj.201000073 (competing risks).

    Examples
    --------
    >>> from ehrmeta.data.survival import survival_array
    >>> y = survival_array([1, 0, 0, 2], [1, 2, 4, 5])
    >>> labels_at(y, horizon=3)  # the second stands for no one; of three one was lost
    (array([1., 0., 0., 0.]), array([1. , 0. , 1.5, 1.5]))
    """
    data = read_event_times(y_true, cause=cause)
    at = read_horizon(data, horizon)
    return _labels(data, float(at[0]), cause, _censoring(data, y_train, at))


def survival_auroc(
    y_true: Any, y_prob: ArrayLike, *, times: ArrayLike, cause: int = 1, y_train: Any = None
) -> Array:
    """Cumulative/dynamic AUROC by each time: those with the event by then against those without.

    With competing events those without include patients who had another event.

    Parameters
    ----------
    y_true : structured array (row,)
        As in `labels_at`, which also explains `cause` and `y_train`.
    y_prob : (row,) or (row, time)
        Risk of the event: one for all times, or one by each time.
    times : (time,)
        Rising, within follow-up.

    Returns
    -------
    (time,)

    Raises
    ------
    DataError
        No event or no patient without it by a time, or what `labels_at` raises.

    References
    ----------
    Blanche et al. (2013), doi:10.1002/sim.5958 (their second definition of controls).

    Examples
    --------
    >>> from ehrmeta.data.survival import survival_array
    >>> y = survival_array([1, 0, 0, 1], [1, 2, 4, 5])
    >>> survival_auroc(y, [0.9, 0.5, 0.2, 0.3], times=[3])
    array([1.])
    """
    data = read_event_times(y_true, cause=cause)
    at = read_horizon(data, times)
    risk = _risk(y_prob, len(data.time), len(at))
    censoring = _censoring(data, y_train, at)
    area = np.empty(len(at))
    for column, time in enumerate(at):
        label, weight = _labels(data, time, cause, censoring)
        area[column] = auroc(label, risk[:, column], weight[None])[0]
        if np.isnan(area[column]):
            has = "no event" if not np.any(label * weight) else "no patient without the event"
            raise DataError(f"AUROC at time {time:g} is not defined: there is {has} by then.")
    return area


def survival_brier(
    y_true: Any, y_prob: ArrayLike, *, times: ArrayLike, cause: int = 1, y_train: Any = None
) -> Array:
    r"""Mean squared distance of the risk by each time from what has happened by then.

    :math:`\frac1n \sum_i w_i(t)\, (d_i(t) - \hat F_i(t))^2` with labels d and weights w of
    `labels_at`.

    Parameters
    ----------
    y_true, times, cause, y_train
        As in `survival_auroc`.
    y_prob : (row, time)
        Probability of the event by each time (one minus survival where nothing competes);
        (row,) for one time.

    Returns
    -------
    (time,)

    Examples
    --------
    >>> from ehrmeta.data.survival import survival_array
    >>> y = survival_array([1, 0, 0, 1], [1, 2, 4, 5])
    >>> survival_brier(y, [1.0, 0.5, 0.0, 0.0], times=[3])
    array([0.])
    """
    data = read_event_times(y_true, cause=cause)
    at = read_horizon(data, times)
    risk = _risk(y_prob, len(data.time), len(at), per_time=True)
    if np.any((risk < 0) | (risk > 1)):
        raise DataError("y_prob must lie between 0 and 1: pass the risk of the event by each time.")
    censoring = _censoring(data, y_train, at)
    score = np.empty(len(at))
    for column, time in enumerate(at):
        label, weight = _labels(data, time, cause, censoring)
        score[column] = np.mean(weight * (label - risk[:, column]) ** 2)
    return score


def integrated_survival_brier(
    y_true: Any, y_prob: ArrayLike, *, times: ArrayLike, cause: int = 1, y_train: Any = None
) -> float:
    """Mean of `survival_brier` over the time from the first to the last of `times`.

    By the trapezoidal rule; parameters are those of `survival_brier`, at least two times.

    Examples
    --------
    >>> from ehrmeta.data.survival import survival_array
    >>> y = survival_array([1, 0, 0, 1], [1, 2, 4, 5])
    >>> integrated_survival_brier(y, np.full((4, 2), 0.5), times=[1.0, 3.0])
    0.25
    """
    at = np.atleast_1d(np.asarray(times, np.float64))
    if len(at) < 2:
        raise DataError("an integral needs at least two times. Use survival_brier for one.")
    score = survival_brier(y_true, y_prob, times=at, cause=cause, y_train=y_train)
    return float(np.trapezoid(score, at) / (at[-1] - at[0]))


def _labels(
    data: EventTimes, horizon: float, cause: int, censoring: StepCurve
) -> tuple[Array, Array]:
    happened = (data.time <= horizon) & (data.event > 0)
    followed = (data.time >= horizon) & ~happened
    known = happened | followed
    kept = censoring.before(np.minimum(data.time, horizon))  # above 0: someone is followed so long
    weight = np.divide(1.0, kept, out=np.zeros_like(kept), where=known)
    return ((data.event == cause) & happened).astype(np.float64), weight


def _censoring(data: EventTimes, y_train: Any, at: Array) -> StepCurve:
    train = data if y_train is None else read_event_times(y_train)
    read_horizon(train, at)
    return censoring_curve(train)


def _risk(y_prob: ArrayLike, n_rows: int, n_times: int, *, per_time: bool = False) -> Array:
    """Risks as (row, time)."""
    risk = finite("y_prob", y_prob)
    if risk.shape == (n_rows,) and (n_times == 1 or not per_time):
        risk = np.broadcast_to(risk[:, None], (n_rows, n_times))
    if risk.shape != (n_rows, n_times):
        raise DataError(
            f"y_prob has shape {risk.shape}; pass (row, time), here ({n_rows}, {n_times})."
        )
    return risk
