from __future__ import annotations

import pytest

from benchmarks.speed.memory import measure_training_memory, memory_table


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")
@pytest.mark.parametrize("default", [False, True])
def test_training_memory_is_shown_by_size(default: bool) -> None:
    records = measure_training_memory(50, max_steps=2, default=default)
    (peak,) = (r for r in records if r.metric == "gib")
    assert peak.value is not None and 0.1 < peak.value < 2.0
    assert "fit 50 patients" in memory_table(records)
