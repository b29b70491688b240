import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ehrmeta.data import label_within, landmark_times
from ehrmeta.errors import DataError, DataWarning

pytestmark = pytest.mark.filterwarnings("ignore:events holds no record of")

CODES = ("stroke", "death", "gout")


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
    events, asked, ends = history
    found = label(events, asked, ends, float(horizon))
    expected = {}
    for row, (subject, start) in enumerate(asked.itertuples(index=False)):
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
    events, asked, ends = history
    found = label(events, asked, ends, float(horizon))
    last = asked.prediction_time.max() + horizon
    noise = records(asked.subject_id, last + 1.0, "stroke")
    again = label(pd.concat([events, noise]), asked, ends, float(horizon))
    pd.testing.assert_frame_equal(found, again)


def test_what_is_known_at_the_prediction_time_is_prior():
    events = records([0, 1], [0.0, 0.1], ["stroke", "stroke"])
    found = label(events, at(0.0, 0.0, 0.0), until(9.0, 9.0, 9.0))
    assert found.index.tolist() == [1, 2]
    assert found.event.tolist() == [1, 0]
    assert [finding.count for finding in found.attrs["findings"]] == [1]


def test_a_patient_may_be_asked_about_again():
    events = records([0], [4.0], ["stroke"])
    asked = pd.DataFrame({"subject_id": [0, 0, 0], "prediction_time": [0.0, 3.0, 4.0]})
    found = label(events, asked, until(9.0))
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
        ({"events": records(["0"], [1.0], ["stroke"])}, "of two kinds"),
        ({"events": records([2**63 + 1], [1.0], ["stroke"])}, "uint64 in events and int64"),
        ({"follow_up": until(9.0, 9.0).astype({"subject_id": str})}, "no end for 2 of 2"),
        ({"follow_up": until(9.0)}, "no end for 1 of 2"),
        ({"follow_up": until(9.0, np.nan)}, "missing or infinite in 1 of 2"),
        ({"follow_up": pd.concat([until(9.0, 9.0), until(9.0)])}, "a patient twice"),
        ({"follow_up": until(-1.0, -1.0)}, "none of 2 prediction times is at risk"),
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
        (4, None, "none of 2 patients has 4 visits"),
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
        with pytest.warns(DataWarning, match="happens to nobody. Did you mean '(stroke|death)'"):
            label(events, at(0.0, 0.0), until(9.0, 2.0), **codes)
