"""Learners with an inner loop start at the mixed model where tasks have time."""

from __future__ import annotations

import numpy as np
import pytest

from ehrmeta import (
    ANIL,
    MAML,
    MLP,
    AboveMixedModel,
    DeepMixedEffects,
    MetaClassifier,
    MetaRegressor,
    MetaSGD,
    Reptile,
)

pytestmark = pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")


def patients(n, seed, bend=0.0):
    """Level and slope of each patient, and a curve whose size is the patient's own."""
    rng = np.random.default_rng(seed)
    time, groups = np.tile(np.arange(8.0), n), np.repeat(np.arange(n), 8)
    level, slope, size = rng.normal(0, [[2.0], [0.3], [1.0]], (3, n))[:, groups]
    y = level + slope * time + bend * size * np.sin(time * 1.5) + rng.normal(0, 0.3, 8 * n)
    X = rng.normal(size=(n, 2))[groups]
    return X, y, groups, time


def fitted(algorithm, rows, **parameters):
    X, y, groups, time = rows
    model = MetaRegressor(algorithm, random_state=0, verbose=False, **parameters)
    return model.fit(X, y, groups=groups, time=time)


def predicted(model, rows, shots):
    X, y, groups, time = rows
    seen = time < shots
    adapted = model.adapt(X[seen], y[seen], groups=groups[seen], time=time[seen])
    return adapted.predict(X[~seen], groups=groups[~seen], time=time[~seen])


@pytest.mark.parametrize("algorithm", [MAML(), MetaSGD(), ANIL(), Reptile()], ids=str)
def test_with_few_tasks_it_stays_at_the_mixed_model(algorithm):
    train, new = patients(60, 0), patients(10, 1)
    mixed = fitted(DeepMixedEffects(n_deep=0, deep_mean=False), train, max_steps=20)
    model = fitted(algorithm, train, max_steps=20)
    assert isinstance(model.model_.learner.algorithm, AboveMixedModel)
    assert model.algorithm is algorithm
    for shots in (1, 4):
        np.testing.assert_allclose(
            predicted(model, new, shots), predicted(mixed, new, shots), rtol=1e-5
        )


@pytest.mark.slow
def test_training_leaves_the_start_for_what_the_mixed_model_cannot_fit():
    train, new = patients(300, 0, bend=4.0), patients(100, 1, bend=4.0)
    parameters = {"max_steps": 800, "learning_rate": 1e-2, "batch_size": 64}
    straight = DeepMixedEffects(n_deep=0, deep_mean=False, curves=False)
    mixed = fitted(straight, train, max_steps=1)
    algorithm = AboveMixedModel(MAML(inner_steps=1), straight)
    model = fitted(algorithm, train, backbone=MLP((24, 24)), **parameters)
    assert model.model_.learner.params["gain"] != 0.0
    later = new[1][new[3] >= 4]
    errors = [np.mean((predicted(each, new, 4) - later) ** 2) for each in (mixed, model)]
    assert errors[1] < 0.9 * errors[0]


def test_classes_start_at_the_log_odds_of_the_mixed_model():
    X, y, groups, time = patients(60, 0)
    models = [
        MetaClassifier(algorithm, max_steps=20, random_state=0, verbose=False).fit(
            X, y > 0, groups=groups, time=time
        )
        for algorithm in (MAML(), DeepMixedEffects(n_deep=0, deep_mean=False))
    ]
    seen = time < 3
    risks = [
        each.adapt(X[seen], y[seen] > 0, groups=groups[seen], time=time[seen]).predict_proba(
            X[~seen], groups=groups[~seen], time=time[~seen]
        )
        for each in models
    ]
    np.testing.assert_allclose(*risks, atol=1e-5)


def test_without_time_or_with_several_classes_there_is_no_start():
    X, y, groups, time = patients(60, 0)
    untimed = MetaRegressor(MAML(), max_steps=2, random_state=0, verbose=False)
    untimed.fit(X, y, groups=groups)
    classes = MetaClassifier(MAML(), max_steps=2, random_state=0, verbose=False)
    classes.fit(X, np.digitize(y, [-1.0, 1.0]), groups=groups, time=time)
    for model in (untimed, classes):
        assert isinstance(model.model_.learner.algorithm, MAML)
