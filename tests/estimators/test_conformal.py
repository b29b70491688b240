"""Calibrated intervals hold for new patients, at every k and for every kind of row."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from ehrmeta import ConformalRegressor, MetaClassifier
from ehrmeta.baselines import LastValue, MixedEffects
from ehrmeta.errors import DataError, DataWarning, GroupError, NotFittedError, SchemaError
from ehrmeta.estimators.conformal import _recalibration
from ehrmeta.estimators.conformal_limits import BetaCalibration, Limits
from tests.estimators.patients import Patients, make_patients

pytestmark = pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")


def _visits(n_patients: int, seed: int) -> Patients:
    """Patients with 4 to 9 visits; men are three times as variable as women, to one side."""
    X, y, groups, time = make_patients(n_patients, 9, seed)
    rng = np.random.default_rng(seed)
    X["sex"] = np.repeat(rng.choice(["f", "m"], n_patients), 9)
    noise = rng.gamma(1.0, 1.0, len(y)) - 1.0
    y = y + np.where(X["sex"] == "m", 3.0, 1.0) * noise
    kept = np.tile(np.arange(9), n_patients) < np.repeat(rng.integers(4, 10, n_patients), 9)
    return Patients(X[kept].reset_index(drop=True), y[kept], groups[kept], time[kept])


def _rows(patients: Patients, mask: np.ndarray) -> dict:
    return {
        "X": patients.X[mask],
        "y": patients.y[mask],
        "groups": patients.groups[mask],
        "time": patients.time[mask],
    }


def _shown_asked(patients: Patients, k: int) -> tuple[dict, dict, np.ndarray]:
    """The first k rows of every patient, the others, and their outcomes."""
    early = patients.time < 30 * k
    queried = _rows(patients, ~early)
    return _rows(patients, early), queried, queried.pop("y")


@pytest.fixture(scope="module")
def fitted() -> MixedEffects:
    patients = _visits(150, seed=1)
    return MixedEffects().fit(*patients[:2], groups=patients.groups, time=patients.time)


@pytest.fixture(scope="module")
def conformal(fitted) -> ConformalRegressor:
    patients = _visits(400, seed=2)
    found = ConformalRegressor(fitted, shots=(0, 1, 3), by=("sex",))
    return found.calibrate(*patients[:2], groups=patients.groups, time=patients.time)


SURPLUS = 2.0 / 126.0  # at most, of finitely many: 125 calibration patients of either sex


def _coverage(model, k: int, by: tuple[str, ...]) -> pd.DataFrame:
    """Share of a patient's later rows held, by sex: calibrated on half of a pool, and as it is."""
    pool = _visits(500, seed=3)
    shares = []
    for split in range(12):
        first = np.random.default_rng(split).permutation(500) < 250
        held_out, test = (
            Patients(**_rows(pool, mask)) for mask in (first[pool.groups], ~first[pool.groups])
        )
        conformal = ConformalRegressor(model, shots=(k,), by=by)
        conformal.calibrate(*held_out[:2], groups=held_out.groups, time=held_out.time)
        shown, queried, y = _shown_asked(test, k)
        rows = {"sex": queried["X"]["sex"].to_numpy(), "patient": queried["groups"]}
        for name, source in (("calibrated", conformal), ("own", model)):
            if name == "own" and isinstance(model, LastValue):
                continue
            given = dict(queried)
            if k == 0:
                given.pop("groups")
            adapted = source.adapt(**shown) if k else source.unadapted()
            low, high = adapted.predict_interval(**given).T
            rows[name] = (low <= y) & (y <= high)
        by_patient = pd.DataFrame(rows).groupby(["sex", "patient"]).mean()
        shares.append(by_patient.groupby("sex").mean())
    return pd.concat(shares).groupby("sex").mean()


@pytest.mark.parametrize("k", [0, 1, 3])
def test_women_and_men_are_each_covered_at_every_k(fitted, k):
    coverage = _coverage(fitted, k, by=("sex",))
    assert coverage["calibrated"].between(0.88, 0.92 + SURPLUS).all()
    assert np.abs(coverage["own"] - 0.9).max() > 0.04  # there was something to calibrate


def test_a_model_without_spread_is_covered_by_intervals_of_one_width():
    X, y, groups, time = _visits(100, seed=11)
    last = LastValue().fit(X, y, groups=groups, time=time)
    assert _coverage(last, 1, by=("sex",))["calibrated"].between(0.88, 0.92 + SURPLUS).all()
    others = _visits(100, seed=10)
    given = {"groups": others.groups, "time": others.time}
    found = ConformalRegressor(last, shots=(1,)).calibrate(others.X, others.y, **given)
    shown, queried, _ = _shown_asked(_visits(20, seed=12), 1)
    low, high = found.adapt(**shown).predict_interval(**queried).T
    assert high - low == pytest.approx(high[0] - low[0])


def test_calibrating_changes_neither_the_prediction_nor_the_model(conformal, fitted):
    shown, queried, _ = _shown_asked(_visits(30, seed=4), 3)
    adapted = conformal.adapt(**shown)
    assert np.array_equal(adapted.predict(**queried), fitted.adapt(**shown).predict(**queried))
    wide, narrow = (adapted.predict_interval(**queried, confidence_level=c) for c in (0.9, 0.5))
    assert np.all((wide[:, 0] < narrow[:, 0]) & (narrow[:, 1] < wide[:, 1]))


def test_each_patient_has_the_limits_of_its_own_support_size(conformal):
    patients = _visits(30, seed=5)
    one, three = (_shown_asked(patients, k)[0] for k in (1, 3))
    first, last = patients.groups < 15, patients.time >= 90
    mixed = {
        name: np.concatenate([one[name][one["groups"] < 15], three[name][three["groups"] >= 15]])
        for name in ("y", "groups", "time")
    }
    parts = [one["X"][one["groups"] < 15], three["X"][three["groups"] >= 15]]
    together = conformal.adapt(X=pd.concat(parts), **mixed)
    for shown, mask in ((one, first & last), (three, ~first & last)):
        queried = _rows(patients, mask)
        queried.pop("y")
        apart = conformal.adapt(**shown).predict_interval(**queried)
        assert together.predict_interval(**queried) == pytest.approx(apart, rel=1e-9)


def test_updating_moves_to_the_limits_of_the_larger_support(conformal):
    patients = _visits(20, seed=6)
    one, three = (_shown_asked(patients, k)[0] for k in (1, 3))
    later = _rows(patients, (patients.time >= 30) & (patients.time < 90))
    queried = _shown_asked(patients, 3)[1]
    updated = conformal.adapt(**one).update(**later)
    direct = conformal.adapt(**three)
    expected = direct.predict_interval(**queried)
    assert updated.predict_interval(**queried) == pytest.approx(expected, rel=1e-9)


def test_unseen_support_sizes_use_limits_of_all_sizes_with_a_warning(conformal):
    shown, queried, _ = _shown_asked(_visits(30, seed=7), 2)
    adapted = conformal.adapt(**shown)
    with pytest.warns(DataWarning, match=r"after 2 shots, by sex.*19, got 0"):
        interval = adapted.predict_interval(**queried)
    predicted = adapted.adapted.predict_distribution(**queried)
    limits = np.array(conformal.limits_[None, None].at(0.9))
    expected = predicted.loc[:, None] + predicted.scale[:, None] * limits
    assert interval == pytest.approx(predicted.outcome.inverse(expected))


def test_kinds_with_too_few_patients_fall_to_all_kinds_of_their_size(fitted):
    X, y, groups, time = _visits(60, seed=8)
    few = (X["sex"] == "f") | (groups < 20)
    found = ConformalRegressor(fitted, shots=(1,), by=("sex",))
    found.calibrate(X[few], y[few], groups=groups[few], time=time[few])
    assert {level for _, level in found.limits_} == {None, "sex f"}  # rare kinds are not named
    shown, queried, _ = _shown_asked(_visits(30, seed=9), 1)
    with pytest.warns(DataWarning, match="too few calibration patients"):
        interval = found.adapt(**shown).predict_interval(**queried)
    all_kinds = ConformalRegressor(fitted, shots=(1,))
    all_kinds.calibrate(X[few], y[few], groups=groups[few], time=time[few])
    men = (queried["X"]["sex"] == "m").to_numpy()
    expected = all_kinds.adapt(**shown).predict_interval(**queried)
    assert np.array_equal(interval[men], expected[men])
    assert not np.any(np.all(interval[~men] == expected[~men], axis=1))


def test_numbers_are_cut_and_text_is_taken_as_it_is(fitted):
    X, y, groups, time = _visits(120, seed=10)
    found = ConformalRegressor(fitted, shots=(1,), by={"sex": (), "age": (40, 60)})
    found.calibrate(X, y, groups=groups, time=time)
    kinds = {level for k, level in found.limits_ if k == 1 and level}
    expected = {f"sex {s}, age {a}" for s in "fm" for a in ("up to 40", "40-60", "over 60")}
    assert kinds == expected


def test_without_time_supports_are_random_rows():
    X, y, groups, _ = _visits(150, seed=13)
    model = MixedEffects().fit(X, y + 1.0, groups=groups)
    found = ConformalRegressor(model, shots=(2,)).calibrate(X, y, groups=groups)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found.adapt(X[:2], y[:2]).predict_interval(X[2:4]).shape == (2, 2)


def test_bad_input_is_refused(fitted, conformal):
    X, y, groups, time = _visits(25, seed=14)
    with pytest.raises(NotFittedError, match="not calibrated yet"):
        ConformalRegressor(fitted).adapt(X[:1], y[:1], time=time[:1])
    with pytest.raises(NotFittedError, match="not fitted"):
        ConformalRegressor(MixedEffects()).calibrate(X, y, groups=groups, time=time)
    with pytest.raises(DataError, match="MetaClassifier does not predict numbers"):
        ConformalRegressor(MetaClassifier()).calibrate(X, y, groups=groups, time=time)
    with pytest.raises(GroupError, match="calibrate needs groups"):
        ConformalRegressor(fitted).calibrate(X, y, groups=None, time=time)
    with pytest.raises(DataError, match="none of the 25 calibration tasks"):
        ConformalRegressor(fitted, shots=(9,)).calibrate(X, y, groups=groups, time=time)
    for wrong in (3, ()):
        with pytest.raises(DataError, match="shots must be a sequence of support sizes"):
            ConformalRegressor(fitted, shots=wrong).calibrate(X, y, groups=groups, time=time)
    with pytest.raises(SchemaError, match="Did you mean 'sex'"):
        ConformalRegressor(fitted, by=("sexe",)).calibrate(X, y, groups=groups, time=time)
    with pytest.raises(SchemaError, match="the column 'sexe'"):
        ConformalRegressor(fitted, by="sexe").calibrate(X, y, groups=groups, time=time)
    with pytest.raises(SchemaError, match="too many for subgroups.*cut points"):
        ConformalRegressor(fitted, by=("age",)).calibrate(X, y, groups=groups, time=time)
    with pytest.raises(SchemaError, match="needs numbers and increasing cut points"):
        ConformalRegressor(fitted, by={"sex": (1,)}).calibrate(X, y, groups=groups, time=time)
    small = ConformalRegressor(fitted).calibrate(X, y, groups=groups, time=time)
    shown, queried, _ = _shown_asked(_visits(3, seed=15), 1)
    with pytest.raises(DataError, match="a level of 99 % needs 199 calibration tasks.*got 25"):
        small.adapt(**shown).predict_interval(**queried, confidence_level=0.99)
    with pytest.raises(DataError, match="strictly between 0 and 1"):
        conformal.adapt(**shown).predict_interval(**queried, confidence_level=1.0)


def test_errors_are_those_of_later_rows_after_each_size_over_the_models_sd(fitted):
    patients = _visits(60, seed=21)
    X, y, groups, time = patients
    found = ConformalRegressor(fitted, shots=(1, 2), by={"sex": ()})
    found.calibrate(X, y, groups=groups, time=time)
    errors = {}
    for k in (1, 2):
        shown, queried, later = _shown_asked(patients, k)
        has_later = np.isin(shown["groups"], queried["groups"])
        support = {name: values[has_later] for name, values in shown.items()}
        predicted = fitted.adapt(**support).predict_distribution(**queried)
        error = (predicted.outcome.forward(later) - predicted.loc) / predicted.scale
        codes = np.unique(queried["groups"], return_inverse=True)[1]
        errors[k] = error, queried["groups"], (queried["X"]["sex"] == "m").to_numpy()
        expected = Limits.of(error, codes).coarse()
        np.testing.assert_allclose(found.limits_[k, None].error, expected.error, atol=1e-9)
        men = errors[k][2]
        of_men = Limits.of(error[men], np.unique(queried["groups"][men], return_inverse=True)[1])
        np.testing.assert_allclose(
            found.limits_[k, "sex m"].error, of_men.coarse().error, atol=1e-9
        )
    both = [np.concatenate(parts) for parts in zip(errors[1], errors[2], strict=True)]
    every = Limits.of(both[0], np.unique(both[1], return_inverse=True)[1]).coarse()
    np.testing.assert_allclose(found.limits_[None, None].error, every.error, atol=1e-9)


def test_outcomes_that_became_known_late_are_not_in_the_query(fitted):
    X, y, groups, time = _visits(40, seed=22)
    plain = ConformalRegressor(fitted, shots=(1,)).calibrate(X, y, groups=groups, time=time)
    late = ConformalRegressor(fitted, shots=(1,)).calibrate(
        X, y, groups=groups, time=time, outcome_time=time + 75.0
    )
    assert not np.array_equal(plain.limits_[1, None].error, late.limits_[1, None].error)
    assert (
        plain.predict(X[:3], time=time[:3]).tolist()
        == fitted.predict(X[:3], time=time[:3]).tolist()
    )


@pytest.mark.parametrize(("n_events", "is_mapped"), [(20, True), (19, False)])
def test_probabilities_are_mapped_if_twenty_patients_have_each_class(n_events, is_mapped):
    rng = np.random.default_rng(0)
    task = np.repeat(np.arange(60), 2)
    rows = pd.DataFrame({"task": task, "shots": 1, "level": ""})
    rows["label"] = ((task < n_events) & (np.arange(120) % 2 == 0)).astype(int)
    rows["p1"] = np.clip(0.3 * rows["label"] + rng.uniform(0.1, 0.6, 120), 0.01, 0.99)
    rows["p0"] = 1.0 - rows["p1"]
    maps = _recalibration(rows, 2)
    assert set(maps) == ({(None, None), (1, None)} if is_mapped else set())
    if is_mapped:
        expected = BetaCalibration.of(
            rows["p1"].to_numpy(), (rows["label"] == 1).to_numpy(), np.full(120, 0.5)
        )
        assert maps[1, None][1] == expected


def test_patients_weigh_the_same_in_a_map_however_many_rows_they_have():
    rng = np.random.default_rng(0)
    task = np.repeat(np.arange(60), 2)
    rows = pd.DataFrame({"task": task, "shots": 1, "level": ""})
    rows["label"] = rng.integers(0, 2, 120)
    rows["p1"] = np.clip(0.3 * rows["label"] + rng.uniform(0.1, 0.6, 120), 0.01, 0.99)
    rows["p0"] = 1.0 - rows["p1"]
    copied = pd.concat([rows, rows[rows["task"] < 10]], ignore_index=True)
    p = np.linspace(0.05, 0.95, 9)
    for once, twice in zip(
        _recalibration(rows, 2)[1, None], _recalibration(copied, 2)[1, None], strict=True
    ):
        np.testing.assert_allclose(once.at(p), twice.at(p), atol=1e-4)
