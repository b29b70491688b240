"""Times of adapting are those of the public interface."""

from benchmarks.speed.adapting import adapt_many, batch_table, latency_table, throughput_table
from benchmarks.suite.record import Record


def test_many_patients_are_timed_together_and_one_by_one():
    records = adapt_many(40, seconds=0.0, n_single=2)
    values = {(r.method, r.metric): r.value for r in records}
    for method in ("MAML", "Meta-SGD"):
        assert values[method, "patients_per_second"] > 0
        assert values[method, "ratio"] > 0
    assert all(r.low <= r.value <= r.high for r in records)
    table = throughput_table(records)
    assert "40 patients" in table and "Meta-SGD" in table


def test_the_ratio_stands_beside_the_time():
    records = [
        Record("speed", "adapt one patient: arrays", "MAML", metric, value)
        for metric, value in (("ms", 1.5), ("ratio", 4.0))
    ]
    assert latency_table(records).splitlines()[-1].split()[-3:] == ["1.50", "4.00", "x"]


def test_the_share_of_a_step_is_shown_in_percent():
    values = {"batch_ms": 2.0, "step_ms": 40.0, "batch_share": 0.05}
    records = [Record("speed", "a step", "ehrmeta", name, v) for name, v in values.items()]
    assert batch_table(records).splitlines()[-1].split()[-4:] == ["40.0", "2.00", "5.0", "%"]
