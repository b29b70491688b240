"""Items of the checklists are filled by the report, answered by the authors, or missing."""

from __future__ import annotations

import pytest

from ehrmeta.errors import DataError
from ehrmeta.report.tripod import tripod_tables


def test_the_checklists_are_filled_answered_or_missing():
    given = {"17": "yes", "5a": "registry", "C11": "low"}
    tripod, cluster = tripod_tables(given, has_groups=True)
    assert (len({row[0] for row in tripod.rows}), len({row[0] for row in cluster.rows})) == (52, 37)
    for table in (tripod, cluster):
        assert {row[1] for row in table.rows} == {"filled", "answered", "missing"}
    status = [row[1] for row in (*tripod.rows, *cluster.rows)]
    assert status.count("answered") == 4  # both checklists ask for the origin of data
    unanswered = tripod_tables({}, has_groups=True)
    before = [row[1] for table in unanswered for row in table.rows]
    assert before.count("missing") - status.count("missing") == 4
    with pytest.raises(DataError, match=r"answers \['99', 5\] match no open item"):
        tripod_tables({"99": "what?", 5: "x"}, has_groups=True)


def status_of(answers, *, has_groups=True):
    """Status of every item, those of TRIPOD-Cluster with a C."""
    tripod, cluster = tripod_tables(answers, has_groups=has_groups)
    state = {row[0].partition(" ")[0]: row[1] for row in tripod.rows}
    return state | {"C" + row[0].partition(" ")[0]: row[1] for row in cluster.rows}


def test_the_full_model_is_left_to_the_authors():
    state = status_of({})
    assert (state["22"], state["C12b"]) == ("missing", "missing")
    state = status_of({"22": "file in the archive"})
    assert (state["22"], state["C12b"]) == ("answered", "answered")


def test_an_item_of_several_others_is_as_open_as_the_most_open_one():
    assert status_of({"18c": "x"})["C18"] == "missing"
    status = status_of({"18c": "x", "18e": "x", "18f": "x"})
    assert (status["C18"], status["C8a"], status["C19"]) == ("answered", "filled", "missing")
