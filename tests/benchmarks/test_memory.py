from __future__ import annotations

import numpy as np
import pytest

from benchmarks.speed.memory import measure_training_memory, memory_table
from benchmarks.suite.timing import run_apart


def _hold(gib: float) -> int:
    return int(np.ones(int(gib * 2**27)).sum())


@pytest.mark.slow
def test_peak_is_that_of_the_work_and_not_of_this_process() -> None:
    ballast = np.ones(2**26)  # half a GiB held here
    result, small = run_apart(_hold, 0.001)
    _, large = run_apart(_hold, 0.5)
    assert result == int(0.001 * 2**27)
    assert 0.45 < large - small < 0.6
    assert small < 1.0 and ballast[0] == 1.0


@pytest.mark.slow
def test_training_memory_is_shown_by_size() -> None:
    records = measure_training_memory(50, max_steps=2)
    (peak,) = (r for r in records if r.metric == "gib")
    assert peak.value is not None and 0.1 < peak.value < 2.0
    assert "fit 50 patients" in memory_table(records)
