from __future__ import annotations

import pytest

from benchmarks.reliability.run import Amounts, reliability_table, run_reliability
from benchmarks.suite.cells import Run

FEW = Amounts(damaged_files=400, forged_files=14, kills=2, calls_in_threads=100, adapts=200)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:levels of")
def test_no_fault_does_harm():
    printed = []
    records = run_reliability(Run(echo=printed.append), FEW)
    failures = {record.case: record.value for record in records if record.metric == "failures"}
    assert failures == dict.fromkeys(failures, 0.0)
    slowest = [record.value for record in records if record.metric == "slowest_s"]
    assert max(slowest) < 1.0
    table = reliability_table(records)
    assert all(case in table for case in failures)
