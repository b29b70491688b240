import pytest

from benchmarks.treatment.table import treatment_tables
from benchmarks.treatment.trials import measure_survival, measure_trial


def test_one_arm_for_all_gains_nothing_over_itself():
    records = measure_trial("rhdnase", "zero")
    gain = next(record for record in records if record.metric == "gain_sd")
    assert gain.value <= 0  # the control for all, where the drug is better
    assert "rhdnase" in treatment_tables(records)


def test_weights_for_censoring_agree_with_kaplan_meier():
    records = measure_survival("udca")
    ours, plain = (record.value for record in records)
    assert ours == pytest.approx(plain, abs=40)  # days, of 1,096
