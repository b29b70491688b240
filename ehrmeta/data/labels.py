"""Prediction times, and what happens to a patient within a horizon of each."""

import warnings
from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ehrmeta.data.columns import read_columns, refuse_rows, require_columns
from ehrmeta.data.findings import Finding
from ehrmeta.data.tasks import index_tasks
from ehrmeta.errors import DataError, DataWarning, did_you_mean

Array = NDArray[np.float64]


def landmark_times(
    groups: Any, time: Any, shots: int, *, index: float | pd.Series | None = None
) -> pd.DataFrame:
    """Earliest prediction time of each patient: at the `shots`-th visit, and not before the index.

    Patients with fewer visits are left out. Waiting for a visit makes nobody immortal here: the
    risk counts from the prediction time on.

    Parameters
    ----------
    groups, time : array-like, (row,)
        Patient and time of every visit; visits at one time count as one.
    shots : int
        Visits that must have been seen.
    index : float or Series, optional
        Time of entry into the cohort (diagnosis, matching, randomisation), one for all or one per
        patient, by id.

    Returns
    -------
    DataFrame
        ``subject_id`` and ``prediction_time``, as in MEDS: what is known at that time, inclusive,
        may inform the prediction.

    Examples
    --------
    >>> landmark_times([1, 1, 1, 2, 2, 3], [-9, 2, 5, -9, -4, 0], 2, index=0.0)
       subject_id  prediction_time
    0           1              2.0
    1           2              0.0
    """
    if isinstance(shots, bool) or not isinstance(shots, int | np.integer) or shots < 1:
        raise DataError(f"shots must be a whole number of visits, 1 or more, got {shots!r}.")
    times = _times(np.asarray(time), "time")
    tasks = index_tasks(groups)
    if len(times) != len(tasks.codes):
        raise DataError(f"time has {len(times)} rows and groups {len(tasks.codes)}: one per visit.")
    visits = pd.DataFrame({"code": tasks.codes, "time": times}).drop_duplicates()
    visits = visits.sort_values(["code", "time"])
    kth = visits[visits.groupby("code").cumcount() == shots - 1]
    if len(kth) == 0:
        raise DataError(f"none of {tasks.n_tasks:,} patients has {shots} visits. Ask for fewer.")
    labels, at = tasks.labels[kth["code"]], kth["time"].to_numpy()
    first = pd.DataFrame({"subject_id": labels, "prediction_time": at})
    if index is None:
        return first
    entry = first["subject_id"].map(index) if isinstance(index, pd.Series) else float(index)
    if not np.isfinite(entry).all():
        raise DataError("index is missing or infinite for some patients. Give every patient one.")
    return first.assign(prediction_time=np.maximum(first["prediction_time"], entry))


def label_within(
    events: Any,
    horizon: float,
    *,
    prediction_times: Any,
    follow_up: Any,
    event: str | Sequence[str],
    competing: str | Sequence[str] = (),
) -> pd.DataFrame:
    """Say what happens to each patient within a horizon of a prediction time.

    Only what follows the prediction time makes the label, and only what precedes it decides who is
    labelled: those without a prior event who are still followed.

    Parameters
    ----------
    events : frame, (row, column)
        ``subject_id, time, code`` of everything recorded, also before the prediction times.
    horizon : float
        In the unit of the times.
    prediction_times : frame, (row, column)
        ``subject_id, prediction_time``; see `landmark_times`. A patient may have several.
    follow_up : frame, (row, column)
        ``subject_id, time``: until when each patient was followed, death included.
    event : str or sequence of str
        Codes of the outcome. The first one counts.
    competing : str or sequence of str
        Codes that make the outcome impossible, death above all. They are outcomes of their own,
        not censoring. At the same time as an event they come after it.

    Returns
    -------
    DataFrame
        A row per prediction time at risk, under its row number: ``subject_id``,
        ``prediction_time``, ``event`` (0 neither, 1 the event, 2 competing) and ``time`` since the
        prediction time, at most `horizon`: together the `survival_array`; ``status``, one of
        "event", "competing", "event-free" (followed to the horizon) and "censored" (before it);
        and MEDS' ``boolean_value``, missing where censored. ``attrs["findings"]`` counts who was
        left out and why.

    Raises
    ------
    DataError
        A column is missing or not numbers, ids are missing or of two kinds, a patient has no
        follow-up or two, the horizon is not positive or beyond everybody's follow-up, or nobody is
        left at risk.

    Warns
    -----
    DataWarning
        A code is not among the records, of anybody at any time: it may be misspelled.

    Examples
    --------
    >>> events = pd.DataFrame({"subject_id": [1, 2, 3, 4], "time": [3.0, 1.0, 2.0, -1.0]})
    >>> events["code"] = ["stroke", "death", "gout", "stroke"]
    >>> at = pd.DataFrame({"subject_id": [1, 2, 3, 4, 5], "prediction_time": 0.0})
    >>> end = pd.DataFrame({"subject_id": [1, 2, 3, 4, 5], "time": [9.0, 1.0, 5.0, 9.0, 4.0]})
    >>> labels = label_within(
    ...     events, 5, prediction_times=at, follow_up=end, event="stroke", competing="death"
    ... )
    >>> labels[["subject_id", "event", "time", "status", "boolean_value"]]
       subject_id  event  time      status boolean_value
    0           1      1   3.0       event          True
    1           2      2   1.0   competing         False
    2           3      0   5.0  event-free         False
    4           5      0   4.0    censored          <NA>
    """
    if not isinstance(horizon, Real) or not 0 < horizon < np.inf:
        raise DataError(f"horizon must be a positive length of time, got {horizon!r}.")
    landmarks = _frame(prediction_times, "prediction_times", ("subject_id", "prediction_time"))
    records = _frame(events, "events", ("subject_id", "time", "code"))
    if records["subject_id"].dtype != landmarks["subject_id"].dtype:
        raise DataError(
            f"subject_id is of two kinds, {records['subject_id'].dtype} in events and "
            f"{landmarks['subject_id'].dtype} in prediction_times. Write it the same way in all "
            "tables."
        )
    end = _end_of_follow_up(landmarks["subject_id"], follow_up)
    start = landmarks["prediction_time"].to_numpy()
    outcome, competitors = _records_of(records, event), _records_of(records, competing)
    prior = ~np.isnan(_beside(landmarks, outcome, "backward"))
    gone = (end <= start) | ~np.isnan(_beside(landmarks, competitors, "backward"))
    following = (_beside(landmarks, part, "forward") for part in (outcome, competitors))
    # what is recorded after the end of follow-up was not watched for
    to_event, to_competitor = (np.where(at <= end, at, np.inf) - start for at in following)

    at_risk = ~prior & ~gone
    if not at_risk.any():
        raise DataError(
            f"none of {len(landmarks):,} prediction times is at risk: {int(prior.sum()):,} follow "
            "the event, the others the end of follow-up. Check the units and origins of the times."
        )
    longest = float((end - start)[at_risk].max())
    if horizon > longest:
        raise DataError(
            f"horizon {horizon:g} is beyond the longest follow-up after a prediction time, "
            f"{longest:g}. Ask for a shorter one."
        )
    time = np.minimum.reduce([to_event, to_competitor, np.minimum(end - start, horizon)])
    code = np.select([to_event <= time, to_competitor <= time], [1, 2], 0)
    status = np.array(("event-free", "event", "competing"), dtype=object)[code]
    status[(code == 0) & (time < horizon)] = "censored"
    known = pd.array(code == 1, dtype="boolean")
    known[status == "censored"] = pd.NA
    labels = landmarks.assign(event=code, time=time, status=status, boolean_value=known)[at_risk]
    labels.attrs["findings"] = tuple(
        Finding(f"prediction times left out: {why}", "prediction_time", int(count), remedy)
        for why, count, remedy in (
            ("the event was there before", prior.sum(), "Only a first event is predicted."),
            ("no longer followed", (gone & ~prior).sum(), "Check the end of follow-up."),
        )
        if count
    )
    return labels


def _beside(landmarks: pd.DataFrame, records: pd.DataFrame, direction: str) -> Array:
    """Time of the first record after each prediction time, or of the last one up to it; NaN."""
    if len(records) == 0:
        return np.full(len(landmarks), np.nan)
    merged = pd.merge_asof(
        landmarks.assign(place=np.arange(len(landmarks))).sort_values("prediction_time"),
        records[["subject_id", "time"]].sort_values("time"),
        left_on="prediction_time",
        right_on="time",
        by="subject_id",
        direction=direction,
        allow_exact_matches=direction == "backward",
    )
    return np.asarray(merged.sort_values("place")["time"], dtype=np.float64)


def _records_of(records: pd.DataFrame, codes: str | Sequence[str]) -> pd.DataFrame:
    """Records of any of the codes."""
    wanted = [codes] if isinstance(codes, str) else list(codes)
    known = records["code"].unique()
    for code in wanted:
        if code not in known:
            warnings.warn(
                f"events holds no record of '{code}', so it happens to nobody. "
                f"{did_you_mean(code, sorted(map(str, known)))}",
                DataWarning,
                stacklevel=3,
            )
    return records[records["code"].isin(wanted)]


def _end_of_follow_up(subjects: pd.Series, follow_up: Any) -> Array:
    ends = _frame(follow_up, "follow_up", ("subject_id", "time"))
    if ends["subject_id"].duplicated().any():
        raise DataError("follow_up names a patient twice. Keep one end of follow-up each.")
    end: Array = subjects.map(ends.set_index("subject_id")["time"]).to_numpy(np.float64)
    if np.isnan(end).any():
        raise DataError(
            f"follow_up has no end for {int(np.isnan(end).sum()):,} of {len(end):,} prediction "
            "times. Add them, or leave out those patients."
        )
    return end


def _frame(values: Any, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    read = read_columns(values)
    require_columns(read, columns)
    frame = pd.DataFrame({column: read[column] for column in columns})
    for column in columns:
        what = f"column '{column}' of {name}"
        if column == "subject_id":
            remedy = "Drop those rows, or find out whose they are."
            refuse_rows(pd.isna(read[column]), f"{what} is missing", remedy)
        if column.endswith("time"):
            frame[column] = _times(read[column], what)
        elif read[column].dtype.kind in "iuf":
            numbers = read[column].astype(np.float64)
            if not np.any(numbers % 1) and (np.abs(numbers) < 2.0**63).all():  # 64 bits hold them
                frame[column] = read[column].astype(np.int64)  # an id read as 7.0 is the id 7
    return frame


def _times(values: NDArray[Any], name: str) -> Array:
    if values.dtype.kind not in "iuf":
        raise DataError(f"{name} must hold numbers: convert dates with ehrmeta.data.to_time.")
    times: Array = values.astype(np.float64)
    remedy = "Fill it in or drop those rows."
    refuse_rows(~np.isfinite(times), f"{name} is missing or infinite", remedy)
    return times


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
            what = "intervals must be a whole number from 1, or edges"
            raise DataError(f"{what}; got {intervals!r}.")
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
    for bad, what in (
        (~np.isfinite(codes) | (codes < 0) | (codes % 1 != 0), "event is no whole number from 0"),
        (~np.isfinite(times), "time is missing or infinite"),
        (times < 0, "time is negative (it counts from entry)"),
        ((times == 0) & (codes > 0), "an event stands at time 0, so it came before entry"),
    ):
        refuse_rows(bad, what, "Correct or leave out those rows.")
    y = np.empty(len(codes), dtype=[("event", np.int64), ("time", np.float64)])
    y["event"], y["time"] = codes, times
    return y


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
