from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.suite.cache import Cache
from benchmarks.suite.record import Record, write_records
from ehrmeta.errors import DataError

RECORD = Record("speed", "case", "ours", "ms", 1.5, k=3, low=1.0, high=2.0, n_tasks=9)


class Counter:
    """Counts how often a cell is measured."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> list[Record]:
        self.calls += 1
        return [RECORD]


def test_a_finished_cell_is_not_measured_again(tmp_path: Path) -> None:
    measure, settings = Counter(), {"cell": "a (1, 2)", "seed": 0}
    for _ in range(2):
        assert Cache(tmp_path / "cells").cell(settings, measure) == [RECORD]
    assert measure.calls == 1


def test_other_settings_are_another_cell(tmp_path: Path) -> None:
    measure = Counter()
    for seed in (0, 1):
        Cache(tmp_path).cell({"cell": "a", "seed": seed}, measure)
    assert measure.calls == 2


def test_a_run_that_was_stopped_goes_on_after_its_finished_cells(tmp_path: Path) -> None:
    def stopped() -> list[Record]:
        raise KeyboardInterrupt

    cache, first, second = Cache(tmp_path), Counter(), Counter()
    cache.cell({"cell": "first"}, first)
    with pytest.raises(KeyboardInterrupt):
        cache.cell({"cell": "second"}, stopped)
    for name, measure in (("first", first), ("second", second)):
        cache.cell({"cell": name}, measure)
    assert (first.calls, second.calls) == (1, 1)


def test_without_a_folder_every_cell_is_measured() -> None:
    measure = Counter()
    for _ in range(2):
        Cache().cell({"cell": "a"}, measure)
    assert measure.calls == 2


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.cell({"cell": "a"}, Counter())
    (path,) = tmp_path.iterdir()
    path.write_text("{")
    with pytest.raises(DataError, match=path.name):
        cache.cell({"cell": "a"}, Counter())


def test_a_json_file_holds_the_records_and_the_machine(tmp_path: Path) -> None:
    write_records(tmp_path / "speed.json", [RECORD])
    content = json.loads((tmp_path / "speed.json").read_text())
    assert [Record(**fields) for fields in content["records"]] == [RECORD]
    assert {"date", "cpus", "threads", "versions"} <= set(content["machine"])
