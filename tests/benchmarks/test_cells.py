"""Cells of a benchmark come out the same however they are run."""

from __future__ import annotations

from functools import partial

import pytest

from benchmarks.suite.cache import Cache
from benchmarks.suite.cells import Cell, run_cells
from benchmarks.suite.record import Record


@pytest.fixture
def cells() -> list[Cell]:
    records = [
        Record("suite", "case", name, "mse", value, seconds=1.0)
        for name, value in {"a": 1.0, "b": 2.0, "c": 3.0}.items()
    ]
    return [Cell({"cell": record.method}, partial(list, (record,))) for record in records]


def test_several_processes_give_what_one_gives_in_the_same_order(cells, tmp_path):
    alone: list[str] = []
    heard: list[str] = []
    expected = run_cells(cells, alone.append)
    assert run_cells(cells, heard.append, cache=Cache(tmp_path), workers=2) == expected
    assert [record.value for record in expected] == [1.0, 2.0, 3.0]
    assert alone == [
        "[1/3] case: a: 1 in 1.00 s",
        "[2/3] case: b: 2 in 1.00 s",
        "[3/3] case: c: 3 in 1.00 s",
    ]
    assert [line[:5] for line in heard] == ["[1/3]", "[2/3]", "[3/3]"]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_cell_that_could_not_run_is_told_by_its_note():
    heard: list[str] = []
    record = Record("suite", "case", "a", "mse", None, note="diverged")
    run_cells([Cell({"cell": "a"}, lambda: [record])], heard.append)
    assert heard == ["[1/1] case: a: diverged"]
