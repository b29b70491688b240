"""Survival curves, and scores of risks with censoring and competing events.

Patients whose status at the horizon is known are weighted by the inverse probability of not being
censored (IPCW). `labels_at` returns labels and weights that every score of risks accepts:
``risk_scores(label, risk, sample_weight=weight)``.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ehrmeta.data.labels import read_survival
from ehrmeta.errors import DataError
from ehrmeta.evaluation.discrimination import auroc
from ehrmeta.evaluation.metrics import Array, finite


class EventTimes(NamedTuple):
    """Checked follow-up of each patient, (row,)."""

    event: NDArray[np.int64]  # 0 censored, else the kind of event
    time: Array  # of the event or of the last contact


def read_event_times(y_true: Any, *, cause: int = 1) -> EventTimes:
    """Check a structured array of `survival_array`, and the code of the event."""
    data = EventTimes(*read_survival(y_true))
    if len(data.time) == 0:
        raise DataError("y_true has no rows. Pass one row per patient.")
    if cause < 1 or cause != int(cause):
        raise DataError(f"cause is {cause}; events have codes of 1 and above, and 0 is censored.")
    return data


def _read_times(data: EventTimes, times: Any) -> Array:
    """Check the times of a score: increasing, not negative and within follow-up, (time,)."""
    at = np.atleast_1d(finite("times", times))
    if at.ndim != 1 or len(at) == 0 or np.any(np.diff(at) <= 0) or at[0] < 0:
        raise DataError("times must be increasing and not negative.")
    last = data.time.max()
    if at[-1] > last:
        raise DataError(
            f"a time of {at[-1]:g} lies beyond the last follow-up time, {last:g}. Pass earlier "
            "times."
        )
    return at


class StepCurve(NamedTuple):
    """A step function of time, such as a survival curve."""

    start: float
    time: Array  # increasing
    value: Array  # at and after each time

    def at(self, times: Array) -> Array:
        """Value including the steps at these times."""
        return self._after(np.searchsorted(self.time, times, side="right"))

    def before(self, times: Array) -> Array:
        """Value just before these times."""
        return self._after(np.searchsorted(self.time, times, side="left"))

    def _after(self, steps: Any) -> Array:
        return np.asarray(np.concatenate([[self.start], self.value])[steps], np.float64)


class _Counts(NamedTuple):
    """Counts at each distinct time, (time,)."""

    time: Array
    at_risk: Array  # followed up to this time or longer
    events: Array  # of any kind
    censored: Array


def _count(data: EventTimes) -> _Counts:
    time, place = np.unique(data.time, return_inverse=True)
    events = np.bincount(place[data.event > 0], minlength=len(time)).astype(np.float64)
    everyone = np.bincount(place, minlength=len(time)).astype(np.float64)
    at_risk = np.cumsum(everyone[::-1])[::-1]
    return _Counts(time, at_risk, events, everyone - events)


def kaplan_meier(y_true: Any, *, times: ArrayLike) -> Array:
    """Kaplan-Meier estimate of the probability of no event by each time, (time,).

    Parameters
    ----------
    y_true : structured array (row,)
        From `survival_array`: `event` (0 if censored) and `time`.
    times : (time,)
        Increasing, within follow-up.

    Examples
    --------
    >>> from ehrmeta.data.labels import survival_array
    >>> y = survival_array([1, 0, 1], [1, 2, 3])
    >>> kaplan_meier(y, times=[1, 2, 3]).round(3)
    array([0.667, 0.667, 0.   ])
    """
    data = read_event_times(y_true)
    return _event_free(data).at(_read_times(data, times))


def aalen_johansen(y_true: Any, *, times: ArrayLike, cause: int = 1) -> Array:
    r"""Aalen-Johansen estimate of the cumulative incidence under competing events, (time,).

    .. math:: F_c(t) = \sum_{t_j \le t} S(t_{j-1})\, d_{cj} / n_j

    where S is the Kaplan-Meier curve of any event, and :math:`d_{cj}` of :math:`n_j` patients at
    risk have an event with code c at :math:`t_j`. One minus Kaplan-Meier, with competing events
    treated as censoring, overestimates the incidence.

    Parameters are those of `kaplan_meier`; `cause` is the code of the event.

    References
    ----------
    Aalen, Johansen (1978), doi:10.2307/4615704.

    Examples
    --------
    >>> from ehrmeta.data.labels import survival_array
    >>> y = survival_array([1, 2, 1], [1, 2, 3])
    >>> aalen_johansen(y, times=[1, 2, 3]).round(3)
    array([0.333, 0.333, 0.667])
    """
    data = read_event_times(y_true, cause=cause)
    at = _read_times(data, times)
    counts = _count(data)
    place = np.searchsorted(counts.time, data.time[data.event == cause])
    of_cause = np.bincount(place, minlength=len(counts.time)).astype(np.float64)
    hazard: Array = np.divide(of_cause, counts.at_risk, dtype=np.float64)
    incidence: Array = np.cumsum(_event_free(data).before(counts.time) * hazard)
    return StepCurve(0.0, counts.time, incidence).at(at)


def _event_free(data: EventTimes) -> StepCurve:
    counts = _count(data)
    return _product(counts.time, counts.events / counts.at_risk)


def censoring_curve(data: EventTimes) -> StepCurve:
    """Share of patients not censored by each time; events precede censoring at the same time."""
    counts = _count(data)
    at_risk = counts.at_risk - counts.events
    hazard = np.divide(counts.censored, at_risk, out=np.zeros_like(at_risk), where=at_risk > 0)
    return _product(counts.time, hazard)


def _product(time: Array, hazard: Array) -> StepCurve:
    return StepCurve(1.0, time, np.cumprod(1 - hazard, dtype=np.float64))


def labels_at(
    y_true: Any, *, horizon: float, cause: int = 1, y_train: Any = None
) -> tuple[Array, Array]:
    r"""Labels of the event by a horizon, with inverse probability of censoring weights.

    With G the Kaplan-Meier curve of censoring and h the horizon:

    - an event at :math:`T \le h`: label 1 if its code is `cause`, otherwise 0; weight
      :math:`1 / G(T-)`;
    - followed to h without an event: label 0, weight :math:`1 / G(h-)`;
    - censored before h: weight 0.

    Censoring must be independent of the outcome. Events precede censoring at the same time.

    Parameters
    ----------
    y_true : structured array (row,)
        From `survival_array`: `event` (0 if censored, else the code of the event) and `time`.
    horizon : float
        In the unit of `time`.
    cause : int
        Code of the event to predict.
    y_train : structured array, optional
        Patients from whom G is estimated; by default `y_true`.

    Returns
    -------
    label, weight : (row,)

    Raises
    ------
    DataError
        The horizon lies beyond the follow-up of `y_true` or `y_train`.

    References
    ----------
    Graf et al. (1999), Statistics in Medicine 18:2529-2545.
    Schoop et al. (2011), doi:10.1002/bimj.201000073 (competing risks).

    Examples
    --------
    >>> from ehrmeta.data.labels import survival_array
    >>> y = survival_array([1, 0, 0, 2], [1, 2, 4, 5])
    >>> labels_at(y, horizon=3)  # the second is censored, one of three
    (array([1., 0., 0., 0.]), array([1. , 0. , 1.5, 1.5]))
    """
    return _labelled(y_true, horizon, cause, y_train)[1][0]


def survival_auroc(
    y_true: Any, y_prob: ArrayLike, *, times: ArrayLike, cause: int = 1, y_train: Any = None
) -> Array:
    """Cumulative/dynamic AUROC at each time, (time,).

    It compares patients with the event by that time and patients without it. A patient with a
    competing event counts as without the event.

    Parameters
    ----------
    y_true, cause, y_train
        As in `labels_at`.
    y_prob : (row,) or (row, time)
        Risk of the event: one for all times, or one for each time.
    times : (time,)
        Increasing, within follow-up.

    Raises
    ------
    DataError
        By one of the times, no patient or every patient has the event; or as in `labels_at`.

    References
    ----------
    Blanche et al. (2013), doi:10.1002/sim.5958 (their second definition of controls).

    Examples
    --------
    >>> from ehrmeta.data.labels import survival_array
    >>> y = survival_array([1, 0, 0, 1], [1, 2, 4, 5])
    >>> survival_auroc(y, [0.9, 0.5, 0.2, 0.3], times=[3])
    array([1.])
    """
    at, labels = _labelled(y_true, times, cause, y_train)
    risk = _risk(y_prob, len(labels[0][0]), len(at))
    area = np.empty(len(at))
    for column, (label, weight) in enumerate(labels):
        area[column] = auroc(label, risk[:, column], weight[None])[0]
        if np.isnan(area[column]):
            has = "no event" if not np.any(label * weight) else "no patient without the event"
            raise DataError(f"AUROC at time {at[column]:g} is not defined: there is {has} by then.")
    return area


def survival_brier(
    y_true: Any, y_prob: ArrayLike, *, times: ArrayLike, cause: int = 1, y_train: Any = None
) -> Array:
    r"""Brier score of the risk by each time, weighted for censoring, (time,).

    :math:`\frac1n \sum_i w_i(t)\, (d_i(t) - \hat F_i(t))^2` with labels d and weights w of
    `labels_at`.

    Parameters
    ----------
    y_true, times, cause, y_train
        As in `survival_auroc`.
    y_prob : (row, time)
        Probability of the event by each time (one minus survival without competing events);
        (row,) for one time.

    Examples
    --------
    >>> from ehrmeta.data.labels import survival_array
    >>> y = survival_array([1, 0, 0, 1], [1, 2, 4, 5])
    >>> survival_brier(y, [1.0, 0.5, 0.0, 0.0], times=[3])
    array([0.])
    """
    at, labels = _labelled(y_true, times, cause, y_train)
    risk = _risk(y_prob, len(labels[0][0]), len(at), per_time=True)
    if np.any((risk < 0) | (risk > 1)):
        raise DataError("y_prob must lie between 0 and 1: pass the risk of the event by each time.")
    scores = [np.mean(w * (label - p) ** 2) for (label, w), p in zip(labels, risk.T, strict=True)]
    return np.array(scores, np.float64)


def integrated_survival_brier(
    y_true: Any, y_prob: ArrayLike, *, times: ArrayLike, cause: int = 1, y_train: Any = None
) -> float:
    """Integrated Brier score: mean of `survival_brier` from the first to the last of `times`.

    The integral is computed by the trapezoidal rule. Parameters are those of `survival_brier`, with
    at least two times.

    Examples
    --------
    >>> from ehrmeta.data.labels import survival_array
    >>> y = survival_array([1, 0, 0, 1], [1, 2, 4, 5])
    >>> integrated_survival_brier(y, np.full((4, 2), 0.5), times=[1.0, 3.0])
    0.25
    """
    at = np.atleast_1d(np.asarray(times, np.float64))
    if len(at) < 2:
        raise DataError("an integral needs at least two times. For one time use survival_brier.")
    score = survival_brier(y_true, y_prob, times=at, cause=cause, y_train=y_train)
    return float(np.trapezoid(score, at) / (at[-1] - at[0]))


def _labelled(
    y_true: Any, times: Any, cause: int, y_train: Any
) -> tuple[Array, list[tuple[Array, Array]]]:
    """Checked times, and the labels and weights of `labels_at` at each time."""
    data = read_event_times(y_true, cause=cause)
    at = _read_times(data, times)
    train = data if y_train is None else read_event_times(y_train)
    _read_times(train, at)
    censoring = censoring_curve(train)
    labels = []
    for horizon in at:
        happened = (data.time <= horizon) & (data.event > 0)
        known = happened | (data.time >= horizon)
        # positive if the outcome is known, because times lie within follow-up
        uncensored = censoring.before(np.minimum(data.time, horizon))
        weight = np.divide(1.0, uncensored, out=np.zeros_like(uncensored), where=known)
        labels.append((((data.event == cause) & happened).astype(np.float64), weight))
    return at, labels


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
