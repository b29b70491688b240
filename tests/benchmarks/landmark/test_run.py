import numpy as np

from benchmarks.landmark.cells import Plan
from benchmarks.landmark.run import run_landmark
from benchmarks.landmark.table import cells_of, landmark_records, landmark_summary, landmark_tables
from benchmarks.suite.cells import Run

PLAN = Plan(n_folds=5, folds_run=1)


def test_a_run_resumes_from_its_folder_and_is_summarised_in_words(tmp_path):
    names = ["hazard, last value", "logistic, last value"]
    run = Run(cache=tmp_path)
    first = run_landmark(run, PLAN, ["pbcseq"], names)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    stamps = [file.stat().st_mtime_ns for file in files]
    again = run_landmark(run, PLAN, ["pbcseq"], names)
    assert [file.stat().st_mtime_ns for file in files] == stamps
    for name in names:
        np.testing.assert_array_equal(first[0].risks[name][5], again[0].risks[name][5])
    cells = cells_of(again)
    table = next(landmark_tables(cells))
    assert "pbcseq: death" in table and all(name in table for name in names)
    assert "no summary" in landmark_summary(cells)
    methods = {record.method for record in landmark_records(cells)}
    assert methods == set(names)
