"""Sets of classes hold for new patients, rare classes too; probabilities add up to the events."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import special

from ehrmeta import ConformalClassifier, MetaClassifier, MetaRegressor
from ehrmeta.errors import DataError, DataWarning, NotFittedError
from ehrmeta.estimators._base import TaskClassifier
from ehrmeta.estimators.predictions import ClassPredictive
from ehrmeta.estimators.task_model import TaskModel
from ehrmeta.nn.batch import TaskRows

pytestmark = pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")


class TooSure(TaskClassifier):
    """A classifier that knows the logit, from the standardised x, and triples it."""

    def _fit_tasks(self, rows: TaskRows, reader) -> TaskModel:
        return TripledLogit(**vars(reader))


class TripledLogit(TaskModel):
    def predict(self, support: TaskRows, state, query: TaskRows) -> ClassPredictive:
        logit = 3.0 * (1.1 * query.x[:, 0].double().numpy() - 1.5)
        logits = np.column_stack([np.zeros_like(logit), logit])
        return ClassPredictive(logits, self.table.outcome.labels)


def _visits(n_patients: int, seed: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Rows of patients with 2 to 6 of them; women have a third of the risk that the model says."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_patients), rng.integers(2, 7, n_patients))
    n = len(groups)
    sex = rng.choice(["f", "m"], n_patients)[groups]
    logit = rng.normal(-1.5, 1.0, n_patients)[groups] + rng.normal(0, 0.5, n)
    risk = special.expit(logit - np.where(sex == "f", 1.0, 0.0))
    return pd.DataFrame({"x": logit, "sex": sex}), rng.random(n) < risk, groups


@pytest.fixture(scope="module")
def fitted() -> MetaClassifier:
    X, y, groups = _visits(200, seed=1)
    return MetaClassifier(max_steps=5, random_state=0).fit(X, y, groups=groups)


@pytest.fixture(scope="module")
def conformal(fitted) -> ConformalClassifier:
    X, y, groups = _visits(800, seed=2)
    found = ConformalClassifier(fitted, shots=(0, 1), by=("sex",))
    return found.calibrate(X, y, groups=groups)


def _shares(held: np.ndarray, y: np.ndarray, groups: np.ndarray) -> dict[bool, float]:
    """Share of rows whose class is in their set, patients weighing the same, by class."""
    own = pd.DataFrame({"held": held[np.arange(len(y)), y.astype(int)], "patient": groups})
    return {c: own[y == c].groupby("patient")["held"].mean().mean() for c in (False, True)}


@pytest.mark.parametrize("k", [0, 1])
def test_sets_contain_each_class_at_the_nominal_level(conformal, k):
    X, y, groups = _visits(3000, seed=3)
    first = ~pd.Series(groups).duplicated().to_numpy()
    queried = slice(None) if k == 0 else ~first
    if k:
        adapted = conformal.adapt(X[first], y[first], groups=groups[first])
        held = adapted.predict_set(X[queried], groups=groups[queried], confidence_level=0.8)
    else:
        held = conformal.unadapted().predict_set(X, confidence_level=0.8)
    assert y.mean() < 0.25  # events are few, and not given up
    for sex in "fm":
        rows = (X["sex"][queried] == sex).to_numpy()
        shares = _shares(held[rows], y[queried][rows], groups[queried][rows])
        assert shares[False] == pytest.approx(0.8, abs=0.06)
        assert shares[True] == pytest.approx(0.8, abs=0.09)


def test_larger_levels_give_larger_sets(conformal):
    X, _, _ = _visits(200, seed=4)
    narrow, wide = (conformal.unadapted().predict_set(X, confidence_level=c) for c in (0.6, 0.95))
    assert np.all(wide | ~narrow)
    assert wide.sum() > narrow.sum()


def test_probabilities_of_a_model_that_is_too_sure_are_mended():
    X, y, groups = _visits(1500, seed=5)
    model = TooSure().fit(X[["x"]], y, groups=groups)
    found = ConformalClassifier(model, shots=(0,))
    found.calibrate(X[["x"]], y, groups=groups, allow_training_table=True)
    new, event, _ = _visits(4000, seed=6)
    own, mended = (source.unadapted().predict_proba(new[["x"]]) for source in (model, found))
    np.testing.assert_allclose(mended.sum(1), 1.0)
    assert np.mean(mended[:, 1]) == pytest.approx(event.mean(), abs=0.02)
    loss = [-np.log(np.where(event, p[:, 1], p[:, 0])).mean() for p in (own, mended)]
    assert loss[1] < loss[0] - 0.05
    assert np.all(np.diff(mended[np.argsort(own[:, 1]), 1]) >= 0.0)  # the order stays


def test_several_classes_have_sets_and_probabilities_too():
    rng = np.random.default_rng(0)
    groups, X = np.repeat(np.arange(160), 4), rng.normal(size=(640, 2))
    y = np.array(["a", "b", "c"])[np.digitize(X[:, 0] + rng.normal(0, 0.5, 640), [-0.5, 0.5])]
    train = groups < 80
    model = MetaClassifier(max_steps=5, random_state=0)
    model.fit(X[train], y[train], groups=groups[train])
    found = ConformalClassifier(model, shots=(1,))
    found.calibrate(X[~train], y[~train], groups=groups[~train])
    adapted = found.adapt(X[:2], y[:2])
    assert list(adapted.classes_) == ["a", "b", "c"]
    np.testing.assert_allclose(adapted.predict_proba(X[2:4]).sum(1), 1.0)
    with pytest.warns(DataWarning, match="after 2 shots"):
        assert adapted.predict_set(X[2:4]).shape == (2, 3)
    assert set(adapted.update(X[2:3], y[2:3]).predict(X[3:4])) <= set(y)


def test_bad_input_is_refused(fitted, conformal):
    X, y, groups = _visits(30, seed=7)
    with pytest.raises(NotFittedError, match="not calibrated yet"):
        ConformalClassifier(fitted).unadapted()
    with pytest.raises(DataError, match="MetaRegressor does not predict classes"):
        ConformalClassifier(MetaRegressor()).calibrate(X, y, groups=groups)
    small = ConformalClassifier(fitted, shots=(0,)).calibrate(X, y, groups=groups)
    with pytest.raises(DataError, match=r"a level of 99 % needs 99 calibration tasks"):
        small.unadapted().predict_set(X, confidence_level=0.99)
    none = ConformalClassifier(fitted, shots=(0,)).calibrate(X, y & False, groups=groups)
    with pytest.raises(DataError, match="got 0"):
        none.unadapted().predict_set(X)
    assert np.allclose(none.unadapted().predict_proba(X), fitted.predict_proba(X))
    with pytest.raises(DataError, match="strictly between 0 and 1"):
        conformal.unadapted().predict_set(X, confidence_level=1.5)
