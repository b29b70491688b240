"""The suite of the server measures what it says."""

import pytest

from benchmarks.serving import (
    CPU,
    P50,
    P99,
    RATE,
    ROWS,
    fit_model,
    measure_scoring,
    measure_server,
    serving_table,
)
from benchmarks.suite.record import Record


@pytest.mark.slow
def test_loads_and_scoring_are_measured(tmp_path):
    model = tmp_path / "model.ehrmeta"
    fit_model(100).save(model)
    records = [*measure_server(model, 100), *measure_scoring(model, tmp_path, 1, 20)]
    values = {(r.method, r.metric): r.value for r in records}
    for load in ("saturation", "half load"):
        assert values[load, CPU] > 0
        assert 0 < values[load, P50] <= values[load, P99]
    assert values["half load", RATE] < values["saturation", RATE]
    assert values["score_folder", ROWS] > 1000
    assert "saturation" in serving_table(records)


def test_the_table_has_a_row_per_load():
    values = {RATE: 500.0, CPU: 1.0, P50: 3.0, P99: 9.0}
    records = [
        Record("serving", "", load, metric, value)
        for load in ("saturation", "half load")
        for metric, value in values.items()
    ]
    records.append(Record("serving", "", "score_folder", ROWS, 140_000.0))
    table = serving_table(records)
    assert "half load" in table.splitlines()[3]
    assert "140,000 rows per second of CPU" in table
