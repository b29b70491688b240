import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

from ehrmeta.data import label_within, landmark_times, read_survival, survival_array
from ehrmeta.data.labels import interval_edges, person_period
from ehrmeta.errors import DataError, DataWarning

pytestmark = pytest.mark.filterwarnings("ignore:events has no record of")
CODES = ("stroke", "death", "gout")
people = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), min_size=1, max_size=20)


def records(subjects, times, codes):
    return pd.DataFrame({"subject_id": subjects, "time": times, "code": codes})


def at(*times):
    return pd.DataFrame({"subject_id": range(len(times)), "prediction_time": times})


def until(*times):
    return pd.DataFrame({"subject_id": range(len(times)), "time": times})


def label(events, prediction_times, follow_up, horizon=5.0, **others):
    options = {"event": "stroke", "competing": "death"} | others
    return label_within(
        events, horizon, prediction_times=prediction_times, follow_up=follow_up, **options
    )


@st.composite
def histories(draw):
    n = draw(st.integers(1, 12))
    time = st.integers(-6, 12)
    rows = draw(
        st.lists(st.tuples(st.integers(0, n - 1), time, st.sampled_from(CODES)), max_size=30)
    )
    # somebody is at risk for long, whatever else is drawn
    events = records(
        [subject for subject, _, _ in rows] + [n] * 3,
        [float(when) for _, when, _ in rows] + [100.0] * 3,
        [code for _, _, code in rows] + list(CODES),
    )
    starts = [*map(float, draw(st.lists(time, min_size=n, max_size=n))), 0.0]
    ends = [*map(float, draw(st.lists(time, min_size=n, max_size=n))), 50.0]
    return events, at(*starts), until(*ends)


@settings(max_examples=60, deadline=None)
@given(histories(), st.integers(1, 8))
def test_labels_are_those_of_a_loop_over_patients(history, horizon):
    events, queried, ends = history
    found = label(events, queried, ends, float(horizon))
    expected = {}
    for row, (subject, start) in enumerate(queried.itertuples(index=False)):
        own = events[events.subject_id == subject]
        end = ends.time[subject]
        known = own[own.time <= start]
        if end <= start or known.code.isin(["stroke", "death"]).any():
            continue
        later = own[(own.time > start) & (own.time <= min(end, start + horizon))]
        first = {code: later.time[later.code == code].min() for code in ("stroke", "death")}
        stroke, death = (first[code] if first[code] == first[code] else np.inf for code in first)
        if stroke <= death and stroke < np.inf:
            expected[row] = (1, stroke - start, "event")
        elif death < np.inf:
            expected[row] = (2, death - start, "competing")
        elif end - start >= horizon:
            expected[row] = (0, horizon, "event-free")
        else:
            expected[row] = (0, end - start, "censored")
    got = {row: (e, t, s) for row, e, t, s in found[["event", "time", "status"]].itertuples()}
    assert got == expected


@settings(max_examples=30, deadline=None)
@given(histories(), st.integers(1, 8))
def test_what_comes_after_the_horizon_changes_no_label(history, horizon):
    events, queried, ends = history
    found = label(events, queried, ends, float(horizon))
    last = queried.prediction_time.max() + horizon
    noise = records(queried.subject_id, last + 1.0, "stroke")
    again = label(pd.concat([events, noise]), queried, ends, float(horizon))
    pd.testing.assert_frame_equal(found, again)


def test_what_is_known_at_the_prediction_time_is_prior():
    events = records([0, 1], [0.0, 0.1], ["stroke", "stroke"])
    found = label(events, at(0.0, 0.0, 0.0), until(9.0, 9.0, 9.0))
    assert found.index.tolist() == [1, 2]
    assert found.event.tolist() == [1, 0]
    assert [finding.count for finding in found.attrs["findings"]] == [1]


def test_a_patient_may_have_several_prediction_times():
    events = records([0], [4.0], ["stroke"])
    queried = pd.DataFrame({"subject_id": [0, 0, 0], "prediction_time": [0.0, 3.0, 4.0]})
    found = label(events, queried, until(9.0))
    assert found.time.tolist() == [4.0, 1.0]


def test_frames_of_polars_and_ids_of_another_width_are_the_same():
    events, ends = records([0, 1], [1.0, 2.0], ["stroke", "death"]), until(9.0, 2.0)
    wide = label(events, at(0.0, 0.0), ends)
    narrow = pl.from_pandas(events).with_columns(pl.col("subject_id").cast(pl.Int16))
    pd.testing.assert_frame_equal(label(narrow, pl.from_pandas(at(0.0, 0.0)), ends), wide)
    as_floats = events.astype({"subject_id": np.float64})
    pd.testing.assert_frame_equal(label(as_floats, at(0.0, 0.0), ends), wide)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"horizon": 10.0}, "beyond the longest follow-up"),
        ({"horizon": -1.0}, "positive length"),
        ({"horizon": "5"}, "positive length"),
        ({"events": records([0, None], [1.0, 2.0], ["stroke"] * 2)}, "missing in 1 of 2 rows"),
        ({"events": records(["0"], [1.0], ["stroke"])}, "Use one type"),
        ({"events": records([2**63 + 1], [1.0], ["stroke"])}, "uint64 in events and int64"),
        ({"follow_up": until(9.0, 9.0).astype({"subject_id": str})}, "no end for 2 of 2"),
        ({"follow_up": until(9.0)}, "no end for 1 of 2"),
        ({"follow_up": until(9.0, np.nan)}, "missing or infinite in 1 of 2"),
        ({"follow_up": pd.concat([until(9.0, 9.0), until(9.0)])}, "several rows for a patient"),
        ({"follow_up": until(-1.0, -1.0)}, "none of the 2 prediction times is the patient at risk"),
        ({"events": pd.DataFrame({"subject_id": [0], "time": [1.0]})}, "no column 'code'"),
    ],
)
def test_what_cannot_be_labelled_is_refused(changes, words):
    values = {
        "events": records([0], [1.0], ["stroke"]),
        "prediction_times": at(0.0, 0.0),
        "follow_up": until(9.0, 9.0),
    }
    with pytest.raises(DataError, match=words):
        label(**(values | changes))


def test_the_landmark_is_the_later_of_visit_and_index():
    index = pd.Series([0.0, 5.0, 0.0], index=["a", "b", "c"])
    visits = ["a", "a", "a", "b", "b", "c"]
    found = landmark_times(visits, [-3, 2, 2, 1, 4, 7], 2, index=index)
    assert found.subject_id.tolist() == ["a", "b"]
    assert found.prediction_time.tolist() == [2.0, 5.0]


@pytest.mark.parametrize(
    ("shots", "index", "words"),
    [
        (4, None, "none of the 2 patients has 4 visits"),
        (0, None, "1 or more"),
        (1, pd.Series([0.0], index=[1]), "index is missing"),
        (1, np.inf, "infinite"),
    ],
)
def test_landmarks_that_cannot_be_set_are_refused(shots, index, words):
    with pytest.raises(DataError, match=words):
        landmark_times([1, 1, 2], [0.0, 1.0, 2.0], shots, index=index)


def test_a_code_that_nobody_has_is_not_passed_over():
    events = records([0, 1], [1.0, 2.0], ["stroke", "death"])
    for codes in ({"event": "strok"}, {"competing": "dead"}):
        with pytest.warns(DataWarning, match="has no record of .*Did you mean '(stroke|death)'"):
            label(events, at(0.0, 0.0), until(9.0, 2.0), **codes)


@settings(max_examples=50, deadline=None)
@given(people)
def test_with_an_edge_at_every_time_the_rows_are_kaplan_meiers_risk_sets(drawn):
    event, time = np.array(drawn).T
    edges = np.concatenate([[0], np.unique(time)])
    rows = person_period(event, time, edges)
    for j, end in enumerate(edges[1:]):
        here = rows.interval == j
        assert here.sum() == (time >= end).sum()
        for code in (1, 2):
            ended = (time == end) & (event == code)
            assert (rows.event[here] == code).sum() == ended.sum()


@settings(max_examples=50, deadline=None)
@given(people)
def test_a_person_has_intervals_in_turn_and_an_event_in_the_last_only(drawn):
    event, time = np.array(drawn).T
    rows = person_period(event, time, [0.0, 2.0, 3.5, 9.0])
    for person in range(len(time)):
        own = rows.person == person
        np.testing.assert_array_equal(rows.interval[own], np.arange(own.sum()))
        assert not rows.event[own][:-1].any()
        assert rows.event[own].sum() == event[person]


def test_what_happens_after_the_last_edge_is_not_seen():
    rows = person_period([1, 0], [5.0, 5.0], [0.0, 1.0, 2.0])
    assert not rows.event.any()
    np.testing.assert_array_equal(rows.interval, [0, 1, 0, 1])


@pytest.mark.parametrize(
    ("intervals", "time"),
    [
        (0, [1.0]),
        (2.5, [1.0]),
        ("a", [1.0]),
        (3, [0.0]),
        ([1.0, 2.0], [1.0]),
        ([0.0, 2.0, 2.0], [1.0]),
        ([0.0], [1]),
    ],
)
def test_edges_that_are_none_are_refused(intervals, time):
    with pytest.raises(DataError):
        interval_edges(intervals, np.array(time))


def test_what_was_written_is_read_whatever_the_fields_are_called():
    y = survival_array([1, 0, 2], [0.5, 0.0, 3.0])
    y.dtype.names = ("status", "days")
    event, time = read_survival(y)
    np.testing.assert_array_equal(event, [1, 0, 2])
    np.testing.assert_array_equal(time, [0.5, 0.0, 3.0])


def test_scikit_survivals_own_array_is_read():
    y = np.array([(True, 2.0), (False, 5.0)], dtype=[("cens", bool), ("time", float)])
    event, _ = read_survival(y)
    np.testing.assert_array_equal(event, [1, 0])


@pytest.mark.parametrize(
    ("event", "time", "words"),
    [
        ([1, 0], [2.0, -1.0], "time is negative .* 1 of 2 rows"),
        ([1, 0], [np.nan, 1.0], "time is missing"),
        ([1, 0], [0.0, 1.0], "must be after entry"),
        ([-1, 0], [1.0, 1.0], "not a whole number of 0 or more"),
        ([0.5, 0], [1.0, 1.0], "not a whole number of 0 or more"),
        (["a", "b"], [1.0, 1.0], "must be numeric"),
        ([1], [1.0, 1.0], "one value per row"),
    ],
)
def test_what_cannot_be_a_time_to_an_event_is_refused(event, time, words):
    with pytest.raises(DataError, match=words):
        survival_array(event, time)


def test_a_plain_array_is_refused():
    with pytest.raises(DataError, match="survival_array"):
        read_survival([1, 2])
