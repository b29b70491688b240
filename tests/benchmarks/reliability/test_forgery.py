import pytest

from benchmarks.reliability.damage import refuse_damaged_files
from benchmarks.reliability.forgery import subjects, use_forged_files
from ehrmeta.persistence import write_bundle


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_refused_and_forged_ones_refused_or_finite():
    valid = subjects()
    outcomes = use_forged_files(valid, 250)
    assert not outcomes.failures
    assert outcomes.refused + outcomes.used == 250
    assert outcomes.refused > 100
    assert outcomes.slowest < 1.0
    assert outcomes.growth < 0.3
    saves = [
        lambda path, one=one: write_bundle(path, one.tensors, one.metadata) for one in valid[:4]
    ]
    failures, slowest, growth = refuse_damaged_files(saves, 250)
    assert (failures, slowest < 5.0, growth < 0.3) == (0, True, True)
