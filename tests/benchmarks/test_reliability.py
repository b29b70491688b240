"""The faults of the reliability suite, a few of each kind; and that they can be noticed."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.reliability import canaries, damage
from benchmarks.reliability.run import Amounts, reliability_table, run_reliability
from benchmarks.suite.cells import Run
from ehrmeta.data import Table
from ehrmeta.errors import BundleError
from ehrmeta.estimators import MetaRegressor

FEW = Amounts(damaged_files=400, kills=2, calls_in_threads=100, adapts=200)


@pytest.mark.slow
def test_no_fault_does_harm():
    said = []
    records = run_reliability(Run(say=said.append), FEW)
    failures = {record.case: record.value for record in records if record.metric == "failures"}
    assert failures == dict.fromkeys(failures, 0.0)
    slowest = [record.value for record in records if record.metric == "slowest_s"]
    assert max(slowest) < 1.0
    table = reliability_table(records)
    assert all(case in table for case in failures)


@pytest.fixture(scope="module")
def model():
    table = Table.from_frame(canaries.marked_table(), task="patient", time="day", outcome="hdl")
    model = MetaRegressor(max_steps=2, verbose=False, random_state=0)
    return model.fit(table.X, table.y, groups=table.groups, time=table.time), table


@pytest.mark.parametrize("kind", damage.DAMAGES)
def test_every_kind_of_damage_is_refused(kind, model, tmp_path):
    path = tmp_path / "model.ehrmeta"
    model[0].save(path)
    content, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(5):
        damaged = damage.DAMAGES[kind](bytearray(content), random)
        assert damaged != content
        path.write_bytes(damaged)
        with pytest.raises(BundleError):
            MetaRegressor.load(path)


def test_the_search_finds_cells_where_they_may_be(model, tmp_path):
    """Adapted patients are patient data: their file holds their cells, and is marked so."""
    fitted, table = model
    adapted = fitted.adapt(table.X, table.y, groups=table.groups, time=table.time)
    adapted.save(tmp_path / "patients.ehrmeta")
    written = (tmp_path / "patients.ehrmeta").read_bytes()
    assert b"contains_patient_data" in written
    assert canaries._occurs(table.groups[0], written)
    assert canaries._occurs(float(table.time[0]), written)
