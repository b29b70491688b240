"""Prediction times, outcome labels within a horizon, and survival data."""

from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ehrmeta.data.columns import read_columns, refuse_rows, require_columns
from ehrmeta.data.findings import Finding
from ehrmeta.data.tasks import index_tasks
from ehrmeta.errors import DataError, DataWarning, did_you_mean, warn

Array = NDArray[np.float64]


def landmark_times(
    groups: Any, time: Any, shots: int, *, index: float | pd.Series | None = None
) -> pd.DataFrame:
    """Earliest prediction time of each patient: the `shots`-th visit, or `index` if that is later.

    Patients with fewer visits are dropped. Risks count from the prediction time, so there is no
    immortal-time bias.

    Parameters
    ----------
    groups, time : array-like, (row,)
        Patient and time of every visit; visits at the same time count once.
    shots : int
        Required number of visits.
    index : float or Series, optional
        Time of entry into the cohort (diagnosis, matching, randomisation): one time for all, or a
        series with one per patient, indexed by patient id.

    Returns
    -------
    DataFrame
        ``subject_id`` and ``prediction_time``, as in MEDS: predictions may use data up to and
        including that time.

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
        raise DataError(
            f"time has {len(times)} rows and groups {len(tasks.codes)}. Pass one of each per visit."
        )
    visits = pd.DataFrame({"code": tasks.codes, "time": times}).drop_duplicates()
    visits = visits.sort_values(["code", "time"])
    kth = visits[visits.groupby("code").cumcount() == shots - 1]
    if len(kth) == 0:
        raise DataError(
            f"none of the {tasks.n_tasks:,} patients has {shots} visits. Use fewer shots."
        )
    labels, at = tasks.labels[kth["code"]], kth["time"].to_numpy()
    first = pd.DataFrame({"subject_id": labels, "prediction_time": at})
    if index is None:
        return first
    entry = first["subject_id"].map(index) if isinstance(index, pd.Series) else float(index)
    if not np.isfinite(entry).all():
        raise DataError(
            "index is missing or infinite for some patients. Pass a time for every patient."
        )
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
    """Label each patient by the first event within a horizon after a prediction time.

    Labels depend only on records after the prediction time, and eligibility only on records up to
    it. Patients are eligible (at risk) if they had no event before and are still followed.

    Parameters
    ----------
    events : frame, (row, column)
        ``subject_id, time, code`` of all records, including those before the prediction times.
    horizon : float
        In the unit of the times.
    prediction_times : frame, (row, column)
        ``subject_id, prediction_time``; see `landmark_times`. A patient may have several.
    follow_up : frame, (row, column)
        ``subject_id, time``: each patient's end of follow-up, by death or otherwise.
    event : str or sequence of str
        Codes of the outcome; the first record counts.
    competing : str or sequence of str
        Codes of competing events, such as death. They are outcomes, not censoring. If both occur at
        the same time, the event precedes the competing event.

    Returns
    -------
    DataFrame
        One row per prediction time at risk, indexed by its row number in `prediction_times`:
        ``subject_id``; ``prediction_time``; ``event`` (0 none, 1 the event, 2 competing) and
        ``time`` since the prediction time, at most `horizon`, as `survival_array` takes them;
        ``status``: "event", "competing", "event-free" (followed to the horizon) or "censored"
        (before the horizon); and the ``boolean_value`` of MEDS, missing if censored.
        ``attrs["findings"]`` counts dropped rows by reason.

    Raises
    ------
    DataError
        A column is missing or not numeric; ids are missing or of different types; a patient does
        not have exactly one end of follow-up; the horizon is not positive or lies beyond all
        follow-up; or nobody is at risk.

    Warns
    -----
    DataWarning
        A code occurs in no record; it may be misspelled.

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
            f"subject_id is {records['subject_id'].dtype} in events and "
            f"{landmarks['subject_id'].dtype} in prediction_times. Use one type in all tables."
        )
    end = _end_of_follow_up(landmarks["subject_id"], follow_up)
    start = landmarks["prediction_time"].to_numpy()
    outcome, competitors = _records_of(records, event), _records_of(records, competing)
    prior = ~np.isnan(_nearest_time(landmarks, outcome, "backward"))
    unobserved = (end <= start) | ~np.isnan(_nearest_time(landmarks, competitors, "backward"))
    following = (_nearest_time(landmarks, part, "forward") for part in (outcome, competitors))
    # records after the end of follow-up are ignored
    to_event, to_competitor = (np.where(at <= end, at, np.inf) - start for at in following)

    at_risk = ~prior & ~unobserved
    if not at_risk.any():
        raise DataError(
            f"at none of the {len(landmarks):,} prediction times is the patient at risk: "
            f"{int(prior.sum()):,} are after the event, the others after the end of follow-up or a "
            "competing event. Check the units and origins of the times."
        )
    longest = float((end - start)[at_risk].max())
    if horizon > longest:
        raise DataError(
            f"horizon {horizon:g} is beyond the longest follow-up after a prediction time, "
            f"{longest:g}. Use a shorter horizon."
        )
    time = np.minimum.reduce([to_event, to_competitor, np.minimum(end - start, horizon)])
    code = np.select([to_event <= time, to_competitor <= time], [1, 2], 0)
    status = np.array(("event-free", "event", "competing"), dtype=object)[code]
    status[(code == 0) & (time < horizon)] = "censored"
    known = pd.array(code == 1, dtype="boolean")
    known[status == "censored"] = pd.NA
    labels = landmarks.assign(event=code, time=time, status=status, boolean_value=known)[at_risk]
    labels.attrs["findings"] = tuple(
        Finding(f"prediction times dropped: {why}", "prediction_time", int(count), remedy)
        for why, count, remedy in (
            ("prior event", prior.sum(), "Only first events are predicted."),
            ("no longer followed", (unobserved & ~prior).sum(), "Check the end of follow-up."),
        )
        if count
    )
    return labels


def _nearest_time(landmarks: pd.DataFrame, records: pd.DataFrame, direction: str) -> Array:
    """Time of the next (forward) or last (backward) record at each prediction time, or NaN."""
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
    """Records with one of the codes."""
    wanted = [codes] if isinstance(codes, str) else list(codes)
    known = records["code"].unique()
    for code in wanted:
        if code not in known:
            warn(
                f"events has no record of '{code}'. {did_you_mean(code, sorted(map(str, known)))}",
                DataWarning,
            )
    return records[records["code"].isin(wanted)]


def _end_of_follow_up(subjects: pd.Series, follow_up: Any) -> Array:
    ends = _frame(follow_up, "follow_up", ("subject_id", "time"))
    if ends["subject_id"].duplicated().any():
        raise DataError(
            "follow_up has several rows for a patient. Keep one end of follow-up per patient."
        )
    end: Array = subjects.map(ends.set_index("subject_id")["time"]).to_numpy(np.float64)
    if np.isnan(end).any():
        raise DataError(
            f"follow_up has no end for {int(np.isnan(end).sum()):,} of {len(end):,} prediction "
            "times. Add the ends, or drop these patients."
        )
    return end


def _frame(values: Any, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    read = read_columns(values)
    require_columns(read, columns)
    frame = pd.DataFrame({column: read[column] for column in columns})
    for column in columns:
        what = f"column '{column}' of {name}"
        if column == "subject_id":
            remedy = "Drop these rows, or fill in their patients."
            refuse_rows(pd.isna(read[column]), f"{what} is missing", remedy)
        if column.endswith("time"):
            frame[column] = _times(read[column], what)
        elif read[column].dtype.kind in "iuf":
            numbers = read[column].astype(np.float64)
            if not np.any(numbers % 1) and (np.abs(numbers) < 2.0**63).all():  # fit into 64 bits
                frame[column] = read[column].astype(np.int64)  # id 7 may have been read as 7.0
    return frame


def _times(values: NDArray[Any], name: str) -> Array:
    if values.dtype.kind not in "iuf":
        raise DataError(f"{name} must be numeric. Convert dates with ehrmeta.data.to_time.")
    times: Array = values.astype(np.float64)
    remedy = "Fill it in or drop those rows."
    refuse_rows(~np.isfinite(times), f"{name} is missing or infinite", remedy)
    return times


class PersonPeriods(NamedTuple):
    """Person-period rows, sorted by person and interval."""

    person: NDArray[np.int64]  # (row,)
    interval: NDArray[np.int64]  # (row,)
    event: NDArray[np.int64]  # (row,): event code in the interval; 0 if none


def interval_edges(intervals: int | ArrayLike, time: Array) -> Array:
    """Edges of intervals, (interval + 1,): as given, or of equal length up to the last time.

    Parameters
    ----------
    intervals : int or array-like
        Number of intervals of equal length, or all edges, starting at 0.
    time : (person,)

    Examples
    --------
    >>> interval_edges(4, np.array([1.0, 10.0]))
    array([ 0. ,  2.5,  5. ,  7.5, 10. ])
    """
    if np.ndim(intervals) == 0:
        number = np.asarray(intervals)
        if number.dtype.kind not in "iuf" or number < 1 or number % 1 != 0:
            raise DataError(f"intervals must be a positive number or edges, got {intervals!r}.")
        if len(time) == 0 or time.max() == 0:
            raise DataError("all follow-up ends at time 0. Check the times.")
        return np.linspace(0.0, time.max(), int(number) + 1)
    edges = np.asarray(intervals, dtype=np.float64)
    if len(edges) < 2 or edges[0] != 0 or not np.all(np.diff(edges) > 0):
        raise DataError("the edges of intervals must start at 0 and increase.")
    return edges


def person_period(event: ArrayLike, time: ArrayLike, edges: ArrayLike) -> PersonPeriods:
    """Person-period rows of survival data, with edges ``0 = e_0 < e_1 < ... < e_J``.

    Interval j is ``(e_j, e_(j+1)]``. A person has one row per interval up to that of the event. A
    person censored within an interval has a row for it if at least half of it was observed. With an
    edge at every time, the share of an interval's rows with an event is the hazard of the
    Kaplan-Meier and Aalen-Johansen estimators. Events after the last edge are ignored.

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
    has_event = (code > 0) & (times <= edges[-1])
    at = np.searchsorted(edges[1:], times, side="left")  # the interval of the time
    middles = 0.5 * (edges[:-1] + edges[1:])
    n_observed = np.searchsorted(
        middles, times, side="right"
    )  # intervals observed for half or more
    n_rows = np.where(has_event, at + 1, n_observed)
    person = np.repeat(np.arange(len(times)), n_rows)
    interval = np.arange(len(person)) - np.repeat(np.cumsum(n_rows) - n_rows, n_rows)
    events = np.where(has_event[person] & (interval == at[person]), code[person], 0)
    return PersonPeriods(person, interval, events)


def survival_array(event: ArrayLike, time: ArrayLike) -> NDArray[Any]:
    """Structured array of event codes and times: the y of survival models.

    Parameters
    ----------
    event : array-like of bool or int, (row,)
        0 (or False) for censoring, 1 (or True) for the event, 2 and above for competing events.
    time : array-like of float, (row,)
        Time since entry or, in a landmark analysis, since the prediction time.

    Returns
    -------
    ndarray, (row,)
        With fields ``event`` and ``time``.

    Raises
    ------
    DataError
        Lengths differ, codes are not whole numbers of 0 or more, a time is missing or negative, or
        an event is at time 0 (events must be after entry).

    Examples
    --------
    >>> survival_array([True, False], [2.5, 4.0])
    array([(1, 2.5), (0, 4. )], dtype=[('event', '<i8'), ('time', '<f8')])
    """
    codes, times = np.asarray(event), np.asarray(time)
    if codes.ndim != 1 or codes.shape != times.shape:
        raise DataError(f"event {codes.shape} and time {times.shape} must have one value per row.")
    if codes.dtype.kind not in "biuf" or times.dtype.kind not in "iuf":
        raise DataError(
            "event and time must be numeric: an event code (0 if censored), and a time since entry."
        )
    codes, times = codes.astype(np.float64), times.astype(np.float64)
    for bad, what in (
        (
            ~np.isfinite(codes) | (codes < 0) | (codes % 1 != 0),
            "event is not a whole number of 0 or more",
        ),
        (~np.isfinite(times), "time is missing or infinite"),
        (times < 0, "time is negative (it counts from entry)"),
        ((times == 0) & (codes > 0), "the event time is 0 (events must be after entry)"),
    ):
        refuse_rows(bad, what, "Correct or drop these rows.")
    y = np.empty(len(codes), dtype=[("event", np.int64), ("time", np.float64)])
    y["event"], y["time"] = codes, times
    return y


def read_survival(y: Any) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Event codes and times of a structured array, whose two fields may have any names.

    Raises a `DataError` as `survival_array` does, or if y is not a structured array.

    Examples
    --------
    >>> event, time = read_survival(survival_array([2, 0], [1, 3]))
    >>> event, time
    (array([2, 0]), array([1., 3.]))
    """
    y = np.asarray(y)
    if y.dtype.names is None or len(y.dtype.names) != 2:
        raise DataError(
            "y must be a structured array of event and time. Pass survival_array(event, time)."
        )
    event, time = y.dtype.names
    checked = survival_array(y[event], y[time])
    return checked["event"], checked["time"]
