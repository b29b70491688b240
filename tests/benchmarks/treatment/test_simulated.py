import pytest

from benchmarks.treatment.simulated import measure_sites


def test_the_bayes_rule_is_calibrated():
    records = measure_sites("Bayes rule", 1.0, 1.0, (0, 20), 1)
    values = {(record.metric, record.k): record.value for record in records}
    assert values["pehe", 20] < 0.8 * values["pehe", 0]
    assert values["coverage", 20] == pytest.approx(0.9, abs=0.03)
