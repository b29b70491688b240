from __future__ import annotations

import pytest

from benchmarks.reliability import canaries
from ehrmeta.data import Table
from ehrmeta.estimators import MetaRegressor

# the villages are too small to be named, and are left out of files
pytestmark = pytest.mark.filterwarnings("ignore:levels of")


@pytest.fixture(scope="module")
def model():
    frame = canaries.marked_table()
    table = Table.from_frame(frame, task="patient", time="day", outcome="hdl", known=["creatinine"])
    model = MetaRegressor(max_steps=2, verbose=False, random_state=0)
    return model.fit(table.X, table.y, groups=table.groups, time=table.time), table


def test_the_search_finds_cells_where_they_may_be(model, tmp_path):
    """Adapted patients are patient data: their file holds their cells, and is marked so."""
    fitted, table = model
    adapted = fitted.adapt(table.X, table.y, groups=table.groups, time=table.time)
    adapted.save(tmp_path / "patients.ehrmeta")
    written = (tmp_path / "patients.ehrmeta").read_bytes()
    assert b"contains_patient_data" in written
    assert canaries._occurs(table.groups[0], written)
    assert canaries._occurs(float(table.time[0]), written)
