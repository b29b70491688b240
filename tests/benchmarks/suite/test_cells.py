"""Cells come out the same however they are run, and are kept for as long as they hold."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.suite import cells as suite_cells
from benchmarks.suite.cells import Cell, Fitted, Run, source_digest
from benchmarks.suite.record import Record
from ehrmeta.errors import DataError

RECORD = Record("suite", "case", "a", "ms", 1.5, k=3, low=1.0, high=2.0, n_tasks=9)


def records_of(name: str, value: float) -> list[Record]:
    return [Record("suite", "case", name, "mse", value, seconds=1.0)]


class Counter:
    """Counts how often a cell is measured."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *args: object) -> list[Record]:
        self.calls += 1
        return [RECORD]


def scores() -> Fitted:
    values = {"squared": np.array([0.1, np.nan]), "pit": np.eye(2)}
    return Fitted({-1: values, 10: {}}, 1.5, 0.5, "reml=True", "")


def diverged() -> list[Record]:
    return [Record("suite", "case", "a", "mse", None, note="diverged")]


def stopped() -> list[Record]:
    raise KeyboardInterrupt


CELLS = [
    Cell(f"suite {name}", records_of, (name, value))
    for name, value in {"a": 1.0, "b": 2.0, "c": 3.0}.items()
]


def test_several_processes_give_what_one_gives_in_the_same_order(tmp_path):
    alone: list[str] = []
    printed: list[str] = []
    expected = Run(echo=alone.append).records(CELLS)
    assert Run(echo=printed.append, cache=tmp_path, workers=2).records(CELLS) == expected
    assert [record.value for record in expected] == [1.0, 2.0, 3.0]
    assert alone == [
        "[1/3] suite a: 1 in 1.00 s",
        "[2/3] suite b: 2 in 1.00 s",
        "[3/3] suite c: 3 in 1.00 s",
    ]
    assert [line[:5] for line in printed] == ["[1/3]", "[2/3]", "[3/3]"]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_cell_that_could_not_run_has_a_note():
    printed: list[str] = []
    Run(echo=printed.append).results([Cell("a", diverged)])
    assert printed == ["[1/1] a: diverged"]


def test_a_finished_cell_is_not_measured_again(tmp_path):
    measure = Counter()
    for _ in range(2):
        assert Run(cache=tmp_path / "cells").records([Cell("a (1, 2)", measure)]) == [RECORD]
    assert measure.calls == 1


def test_without_a_folder_every_cell_is_measured():
    measure = Counter()
    for _ in range(2):
        Run().records([Cell("a", measure)])
    assert measure.calls == 2


def test_other_arguments_or_other_code_are_another_cell(tmp_path, monkeypatch):
    measure, run = Counter(), Run(cache=tmp_path)
    for seed in (0, 1):
        run.records([Cell("a", measure, (seed,))])
    monkeypatch.setattr(suite_cells, "source_digest", lambda module: "other code")
    run.records([Cell("a", measure, (0,))])
    assert measure.calls == 3


def test_the_digest_follows_imports_and_nothing_else(tmp_path, monkeypatch):
    """Late, indirect and lazy imports count: the stub of a lazy package names its modules."""
    folder = tmp_path / "benchmarks"
    (folder / "lazy").mkdir(parents=True)
    sources = {
        "cells.py": "from benchmarks import data\nfrom benchmarks.lazy import z\n",
        "data.py": "def read():\n    from benchmarks.late import x\n",
        "late.py": "x = 1\n",
        "table.py": "y = 2\n",
        "lazy/__init__.py": "",
        "lazy/__init__.pyi": "from benchmarks.lazy.inner import z as z\n",
        "lazy/inner.py": "z = 1\n",
    }
    for name, text in sources.items():
        (folder / name).write_text(text)
    monkeypatch.setitem(suite_cells._ROOTS, "benchmarks", folder)

    def digest() -> str:
        source_digest.cache_clear()
        return source_digest("benchmarks.cells")

    before = digest()
    (folder / "table.py").write_text("y = 3\n")
    assert digest() == before
    for name, text in {"late.py": "x = 2\n", "lazy/inner.py": "z = 2\n"}.items():
        (folder / name).write_text(text)
        assert digest() != before
        before = digest()
    source_digest.cache_clear()


def test_scores_are_read_as_they_were_written(tmp_path):
    run, cells = Run(cache=tmp_path), [Cell("a", scores)]
    first, again = run.results(cells)[0], run.results(cells)[0]
    assert (again.seconds, again.tuning_seconds, again.setting) == (1.5, 0.5, "reml=True")
    for name, values in first.scores[-1].items():
        np.testing.assert_array_equal(again.scores[-1][name], values)


def test_a_run_that_was_stopped_goes_on_after_its_finished_cells(tmp_path):
    run, first, second = Run(cache=tmp_path), Counter(), Counter()
    with pytest.raises(KeyboardInterrupt):
        run.records([Cell("first", first), Cell("second", stopped)])
    run.records([Cell("first", first), Cell("second", second)])
    assert (first.calls, second.calls) == (1, 1)


def test_a_damaged_file_is_named(tmp_path):
    run, cells = Run(cache=tmp_path), [Cell("a", Counter())]
    run.records(cells)
    (path,) = tmp_path.iterdir()
    path.write_text("{")
    with pytest.raises(DataError, match=path.name):
        run.records(cells)
