import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ehrmeta.data.person_period import interval_edges, person_period
from ehrmeta.errors import DataError

people = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), min_size=1, max_size=20)


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
