"""The protocol is scored as by hand, and resumes."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.pacoh.data import read_stays, split_stays
from benchmarks.pacoh.run import LAST, OURS, PUBLISHED, pacoh_records, pacoh_table, run_pacoh
from benchmarks.suite.cells import Run


def test_the_last_value_is_scored_as_by_hand(folder):
    results = run_pacoh(Run(quick=True), folder, (LAST,))
    _, test = split_stays(read_stays(folder, "HCT"), None)
    rows = pd.DataFrame({"stay": test.groups, "hour": test.time, "y": test.y})
    last = rows[rows.hour <= 24].sort_values(["stay", "hour"]).groupby("stay").y.last()
    later = rows[rows.hour > 24]
    errors = ((later.y - later.stay.map(last)) ** 2).groupby(later.stay).mean()
    records = {(r.case, r.method, r.metric): r for r in pacoh_records(results)}
    scored = records["HCT, published split", LAST, "rmse_task"]
    assert scored.value == pytest.approx(np.sqrt(errors).mean(), rel=1e-5)
    assert scored.n_tasks == 500
    for name, values in PUBLISHED.items():
        record = records["HCT, published split", f"{name}, as published", "rmse_task"]
        assert (record.value, record.note) == (values["HCT"], "published")


@pytest.mark.slow
def test_the_command_runs_and_resumes(folder, tmp_path):
    words = ["pacoh", "--data", str(folder), "--quick", "--cache", str(tmp_path / "kept")]
    first = CliRunner().invoke(main, [*words, "--json", str(tmp_path / "a.json")])
    assert first.exit_code == 0, first.output
    assert "as published" in first.output
    assert f"{OURS} minus" in first.output
    assert max(map(len, first.output.split("saved")[0].splitlines())) <= 100
    again = CliRunner().invoke(main, words)
    assert pacoh_lines(again.output) == pacoh_lines(first.output)


@pytest.mark.slow
def test_two_processes_find_what_one_does(folder):
    results = [run_pacoh(Run(quick=True, workers=n), folder, (LAST,)) for n in (1, 2)]
    assert pacoh_table(results[0]) == pacoh_table(results[1])


def pacoh_lines(text):
    return [line for line in text.splitlines() if "split" in line]


def test_an_empty_run_has_an_empty_table():
    assert pacoh_table({}) == ""
