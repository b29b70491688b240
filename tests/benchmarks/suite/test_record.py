from __future__ import annotations

import json

import pytest

from benchmarks.suite.record import Record, Target, interval, target_table, write_records

RECORD = Record("speed", "case", "ours", "ms", 1.5, k=3, low=1.0, high=2.0, n_tasks=9)


def test_a_json_file_holds_the_records_and_the_machine(tmp_path):
    write_records(tmp_path / "speed.json", [RECORD])
    content = json.loads((tmp_path / "speed.json").read_text())
    assert [Record(**fields) for fields in content["records"]] == [RECORD]
    assert {"date", "cpus", "threads", "versions"} <= set(content["machine"])


def test_a_record_without_a_value_shows_its_note():
    assert interval(Record("s", "c", "m", "mse", None, note="diverged")) == "diverged"
    assert interval(None) == ""


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (Target.at_most("rmse", 1.0, 1.0), True),
        (Target.at_most("rmse", 1.1, 1.0), False),
        (Target.share("closed", 0.8, 0.8), True),
        (Target.within("coverage", 0.94, 0.87, 0.93), False),
    ],
)
def test_limits_of_targets_are_met_where_they_are_reached(target, met):
    assert target.met is met


def test_a_table_of_targets_says_what_is_open():
    targets = [Target("a", "1", "< 2", True), Target("b", "3", "< 2", None)]
    first, second = target_table(targets, "ours").splitlines()[2:]
    assert first.endswith("met") and second.endswith("open")
    assert target_table([], "ours") == ""
