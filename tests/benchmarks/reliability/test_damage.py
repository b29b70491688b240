from __future__ import annotations

import numpy as np
import pytest

from benchmarks.reliability import canaries, damage
from ehrmeta.data import Table
from ehrmeta.errors import BundleError
from ehrmeta.estimators import MetaRegressor

# the villages are too small to be named, and are left out of files
pytestmark = pytest.mark.filterwarnings("ignore:levels of")


@pytest.fixture(scope="module")
def model():
    frame = canaries.marked_table()
    table = Table.from_frame(frame, task="patient", time="day", outcome="hdl", known=["creatinine"])
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
