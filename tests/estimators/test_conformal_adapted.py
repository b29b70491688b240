"""A calibrated model comes back from its file bit for bit, and damaged ones are refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from ehrmeta import (
    Adapted,
    ConformalClassifier,
    ConformalRegressor,
    MetaClassifier,
    MetaRegressor,
    load,
)
from ehrmeta.baselines import LastValue, MixedEffects
from ehrmeta.errors import BundleError, DataError, DataWarning, NotFittedError
from ehrmeta.estimators import ConformalAdapted, ConformalClassAdapted
from ehrmeta.estimators.conformal_limits import Calibration, Limits
from ehrmeta.persistence import read_bundle, write_bundle
from tests.estimators.patients import make_patients

TRAIN, MORE, NEW = make_patients(60, seed=0), make_patients(80, seed=1), make_patients(1, seed=2)
FIRST, LATER = slice(0, 2), slice(2, 6)


@pytest.fixture(scope="module")
def regressor() -> ConformalRegressor:
    model = MetaRegressor(max_steps=5, random_state=0)
    model.fit(*TRAIN[:2], groups=TRAIN.groups, time=TRAIN.time)
    found = ConformalRegressor(model, shots=(1, 2), by={"sex": (), "age": (50,)})
    return found.calibrate(*MORE[:2], groups=MORE.groups, time=MORE.time)


@pytest.fixture(scope="module")
def classifier() -> ConformalClassifier:
    model = MetaClassifier(max_steps=5, random_state=0)
    model.fit(TRAIN.X, TRAIN.y > 55, groups=TRAIN.groups, time=TRAIN.time)
    found = ConformalClassifier(model, shots=(1, 2))
    return found.calibrate(MORE.X, MORE.y > 55, groups=MORE.groups, time=MORE.time)


@pytest.fixture
def saved(regressor, tmp_path):
    regressor.save(tmp_path / "hdl.ehrmeta")
    return tmp_path / "hdl.ehrmeta"


def test_intervals_come_back_bit_for_bit(regressor, saved):
    loaded = ConformalRegressor.load(saved)
    intervals = [
        found.adapt(NEW.X[FIRST], NEW.y[FIRST], time=NEW.time[FIRST]).predict_interval(
            NEW.X[LATER], time=NEW.time[LATER], confidence_level=0.8
        )
        for found in (regressor, loaded)
    ]
    np.testing.assert_array_equal(*intervals)
    assert loaded.shots == (1, 2)
    assert loaded.limits_.keys() == regressor.limits_.keys()


def test_sets_and_probabilities_come_back_bit_for_bit(classifier, tmp_path):
    classifier.save(tmp_path / "risk.ehrmeta")
    loaded = ConformalClassifier.load(tmp_path / "risk.ehrmeta")
    seen = (NEW.X[FIRST], NEW.y[FIRST] > 55)
    before, after = (found.adapt(*seen, time=NEW.time[FIRST]) for found in (classifier, loaded))
    queried = {"X": NEW.X[LATER], "time": NEW.time[LATER]}
    assert classifier.recalibration_
    np.testing.assert_array_equal(before.predict_proba(**queried), after.predict_proba(**queried))
    np.testing.assert_array_equal(before.predict_set(**queried), after.predict_set(**queried))


def test_no_score_of_a_calibration_row_is_in_the_file(regressor, saved):
    tensors, metadata = read_bundle(saved)
    limits = torch.cat([t[0] for name, t in tensors.items() if name.startswith("limits.")])
    assert all(64 * float(error) % 1 == 0 for error in limits)  # a coarse grid
    assert len(limits) <= 48 * len(regressor.limits_)
    assert "contains_patient_data" not in metadata


def test_a_calibration_on_few_patients_is_marked_as_patient_data(regressor, tmp_path):
    X, y, groups, time = make_patients(n_patients=9, seed=3)
    few = ConformalRegressor(regressor.model, shots=(1,))
    few.calibrate(X, y, groups=groups, time=time).save(tmp_path / "few.ehrmeta")
    assert read_bundle(tmp_path / "few.ehrmeta")[1]["contains_patient_data"]
    assert (tmp_path / "few.ehrmeta").stat().st_mode & 0o777 == 0o600


def test_no_outcome_and_no_id_is_in_the_file(saved):
    tensors, _ = read_bundle(saved)
    content = saved.read_bytes()
    assert not any(np.float64(y).tobytes() in content for y in MORE.y)
    limits = [t for name, t in tensors.items() if name.startswith("limits.")]
    assert limits
    assert all((pair[0].diff() >= 0).all() for pair in limits)  # in order of size, not of rows


def test_other_files_and_altered_ones_are_refused(regressor, saved, tmp_path):
    with pytest.raises(BundleError, match="Open it with ConformalRegressor.load"):
        MetaRegressor.load(saved)
    with pytest.raises(BundleError, match="holds a ConformalRegressor"):
        ConformalClassifier.load(saved)
    regressor.model.save(tmp_path / "plain.ehrmeta")
    with pytest.raises(BundleError, match="a model without patients"):
        ConformalRegressor.load(tmp_path / "plain.ehrmeta")
    tensors, metadata = read_bundle(saved)
    first = next(name for name in tensors if name.startswith("limits."))
    turned = {**tensors, first: tensors[first].flip(1).contiguous()}
    write_bundle(saved, turned, metadata)
    with pytest.raises(BundleError, match="must contain sorted errors"):
        ConformalRegressor.load(saved)
    write_bundle(saved, tensors, {**metadata, "cells": [{"cell": [1]}]})
    with pytest.raises(BundleError, match="do not fit together"):
        ConformalRegressor.load(saved)


def test_what_a_file_cannot_hold_is_said(tmp_path):
    mixed = MixedEffects().fit(*TRAIN[:2], groups=TRAIN.groups, time=TRAIN.time)
    with pytest.raises(NotFittedError, match="not calibrated"):
        ConformalRegressor(mixed).save(tmp_path / "x.ehrmeta")
    found = ConformalRegressor(mixed, shots=(1,))
    found.calibrate(*MORE[:2], groups=MORE.groups, time=MORE.time)
    with pytest.raises(BundleError, match="MixedEffects cannot be saved"):
        found.save(tmp_path / "x.ehrmeta")


def test_an_adapted_patient_does_all_that_one_without_calibration_does(regressor, tmp_path):
    given = {"groups": ["a", "a"], "time": NEW.time[FIRST]}
    adapted = regressor.adapt(NEW.X[FIRST], NEW.y[FIRST], **given)
    queried = {"X": NEW.X[LATER], "groups": ["a"] * 4, "time": NEW.time[LATER]}
    interval = adapted.predict_interval(**queried, confidence_level=0.8)
    quantiles = adapted.predict_quantiles(**queried, levels=(0.1, 0.9))
    np.testing.assert_allclose(interval, quantiles, rtol=1e-12)
    assert (interval != adapted.adapted.predict_interval(**queried, confidence_level=0.8)).any()
    np.testing.assert_array_equal(adapted.predict(**queried), adapted.adapted.predict(**queried))
    total = adapted.explain(**queried).groupby("row")["contribution"].sum()
    np.testing.assert_allclose(total, adapted.predict(**queried), atol=2e-3)
    adapted.save(tmp_path / "patient.ehrmeta")
    for loaded in (
        ConformalAdapted.load(tmp_path / "patient.ehrmeta"),
        load(tmp_path / "patient.ehrmeta"),
    ):
        np.testing.assert_array_equal(
            loaded.predict_interval(**queried, confidence_level=0.8), interval
        )
    with pytest.raises(BundleError, match="adapted from a calibrated model"):
        Adapted.load(tmp_path / "patient.ehrmeta")


def test_patients_that_were_not_adapted_get_the_calibrated_population(regressor):
    given = {"groups": ["a", "a"], "time": NEW.time[FIRST]}
    adapted = regressor.adapt(NEW.X[FIRST], NEW.y[FIRST], **given)
    rows = {"X": NEW.X[LATER], "time": NEW.time[LATER], "confidence_level": 0.8}
    with pytest.warns(DataWarning, match="after 0 shots"):
        new = adapted.predict_interval(**rows, groups=["b"] * 4, new_groups="population")
    with pytest.warns(DataWarning, match="after 0 shots"):
        population = regressor.unadapted().predict_interval(**rows)
    np.testing.assert_array_equal(new, population)
    missing = adapted.predict_interval(**rows, groups=["a", "a", "b", "b"], new_groups="nan")
    np.testing.assert_array_equal(np.isnan(missing[:, 0]), [False, False, True, True])


def test_more_rows_keep_the_calibration(regressor):
    one = regressor.adapt(NEW.X[:1], NEW.y[:1], time=NEW.time[:1])
    two = one.update(NEW.X[1:2], NEW.y[1:2], time=NEW.time[1:2])
    at_once = regressor.adapt(NEW.X[FIRST], NEW.y[FIRST], time=NEW.time[FIRST])
    rows = {"X": NEW.X[LATER], "time": NEW.time[LATER], "confidence_level": 0.8}
    np.testing.assert_array_equal(two.predict_interval(**rows), at_once.predict_interval(**rows))


def test_quantiles_are_one_sided_limits_and_the_interval_is_two_sided(regressor):
    adapted = regressor.adapt(NEW.X[:2], NEW.y[:2], time=NEW.time[:2])
    rows = {"X": NEW.X[2:4], "time": NEW.time[2:4]}
    predicted = adapted.predict_distribution(**rows)
    cell = adapted.limits.cells(
        {name: NEW.X[name].to_numpy()[2:4] for name in NEW.X}, np.array([2, 2])
    )[0]
    limits = regressor.limits_.get(cell, regressor.limits_[2, None])
    if limits.n_tasks < 19:
        limits = regressor.limits_[2, None]

    def at(error):
        return predicted.outcome.inverse(predicted.loc + predicted.scale * error)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        low, high = adapted.predict_interval(**rows).T
        quantiles = adapted.predict_quantiles((rows["X"]), (0.2, 0.5, 0.8), time=rows["time"]).T
    np.testing.assert_allclose(low, at(limits.at(0.9)[0]))
    np.testing.assert_allclose(high, at(limits.at(0.9)[1]))
    for found, error in zip(
        quantiles, (limits.lower(0.8), limits.lower(0.5), limits.upper(0.8)), strict=True
    ):
        np.testing.assert_allclose(found, at(error))


def test_sets_hold_the_classes_at_or_above_their_own_limit(classifier):
    adapted = classifier.adapt(NEW.X[:2], NEW.y[:2] > 55, time=NEW.time[:2])
    rows = {"X": NEW.X[2:], "time": NEW.time[2:]}
    own = adapted.adapted.predict_proba(**rows)
    for level in (0.5, 0.9):
        least = [limits.lower(level) for limits in classifier.limits_[2, None]]
        np.testing.assert_array_equal(
            adapted.predict_set(**rows, confidence_level=level), own >= least
        )
    p = adapted.predict_proba(**rows)
    np.testing.assert_allclose(p.sum(1), 1.0)
    maps = classifier.recalibration_[2, None]
    mapped = np.column_stack([maps[c].at(own[:, c]) for c in (0, 1)])
    np.testing.assert_allclose(p, mapped / mapped.sum(1, keepdims=True))
    labels = classifier.classes_
    np.testing.assert_array_equal(adapted.predict(**rows), labels[p.argmax(1)])
    frame = adapted.predict_frame(**rows)
    np.testing.assert_array_equal(frame["risk"], p[:, 1])


def test_one_side_needs_half_as_many_patients_as_two(regressor):
    limits = Limits.of(np.linspace(-1.0, 1.0, 12), np.arange(12))
    calibration = Calibration({(None, None): (limits,), (2, None): (limits,)}, {}, {})
    adapted = regressor.adapt(NEW.X[:2], NEW.y[:2], time=NEW.time[:2])
    few = ConformalAdapted(adapted.model, None, adapted._support, limits=calibration)
    rows = {"X": NEW.X[2:], "time": NEW.time[2:]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        assert np.isfinite(few.predict_quantiles(rows["X"], (0.1, 0.9), time=rows["time"])).all()
        with pytest.raises(DataError, match="90 % needs 19 calibration tasks"):
            few.predict_interval(**rows)


def test_sets_of_twelve_patients_need_no_larger_group(classifier):
    limits = Limits.of(np.linspace(0.0, 1.0, 12), np.arange(12))
    calibration = Calibration({(None, None): (limits, limits), (2, ""): (limits, limits)}, {}, {})
    adapted = classifier.adapt(NEW.X[:2], NEW.y[:2] > 55, time=NEW.time[:2])
    few = ConformalClassAdapted(adapted.model, None, adapted._support, limits=calibration)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        members = few.predict_set(NEW.X[2:], time=NEW.time[2:])
    p = adapted.adapted.predict_proba(NEW.X[2:], time=NEW.time[2:])
    np.testing.assert_array_equal(members, p >= limits.lower(0.9))


def test_without_a_spread_limits_are_in_standard_deviations_of_the_outcome():
    model = LastValue().fit(*TRAIN[:2], groups=TRAIN.groups, time=TRAIN.time)
    found = ConformalRegressor(model, shots=(2,))
    found.calibrate(*MORE[:2], groups=MORE.groups, time=MORE.time)
    adapted = found.adapt(NEW.X[:2], NEW.y[:2], time=NEW.time[:2])
    interval = adapted.predict_interval(NEW.X[2:], time=NEW.time[2:])
    expected = NEW.y[1] + model.table_.outcome.scale * np.array(found.limits_[2, None].at(0.9))
    np.testing.assert_allclose(interval, np.tile(expected, (4, 1)), rtol=1e-5)
