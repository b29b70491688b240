import numpy as np
import pytest

from benchmarks.treatment import n_of_1


@pytest.mark.slow
def test_every_method_has_its_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(n_of_1, "SHOTS", (28,))
    records = n_of_1.measure_periods(1, True, 25, 20)
    methods = {record.method for record in records}
    assert len(records) == len(methods) * len(n_of_1.METRICS)
    assert all(np.isfinite(record.value) for record in records)
    assert all(name in n_of_1.n_of_1_table(records) for name in methods)
