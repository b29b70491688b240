from benchmarks.speed.batch_building import batch_table
from benchmarks.suite.record import Record


def test_the_share_of_a_step_is_shown_in_percent():
    values = {"batch_ms": 2.0, "step_ms": 40.0, "batch_share": 0.05}
    records = [Record("speed", "a step", "ehrmeta", name, v) for name, v in values.items()]
    assert batch_table(records).splitlines()[-1].split()[-4:] == ["40.0", "2.00", "5.0", "%"]
