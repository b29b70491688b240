import pytest

from benchmarks.treatment import dosing


@pytest.mark.slow
def test_no_dose_beats_the_best_under_the_true_posterior(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dosing, "SHOTS", (2,))
    records = dosing.measure_doses(1, 40, 40)
    chance = {r.method: r.value for r in records if r.metric == dosing.TRUTH[1]}
    assert max(chance, key=chance.__getitem__) == dosing.CEILING
    assert min(chance, key=chance.__getitem__) == dosing.ONE_DOSE
    assert chance[dosing.LAW] > chance[dosing.POPULATION] + 0.1
    assert dosing.LAW in dosing.dosing_table(records)
