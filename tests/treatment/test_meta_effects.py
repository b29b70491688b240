"""Effects by an estimator over tasks are those of the estimator on pseudo-outcomes."""

import numpy as np
import pytest

from ehrmeta.baselines import TaskRidge
from ehrmeta.errors import DataError
from ehrmeta.treatment.learners import Scoring
from ehrmeta.treatment.meta_effects import MetaEffects, MetaOutcomes
from ehrmeta.treatment.nuisances import TaskNuisances
from ehrmeta.treatment.treated_rows import TreatedRows

VECTORS = np.eye(2)[:, 1:]


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    task, x = np.repeat(np.arange(8), 20), rng.normal(size=(160, 1))
    arm = rng.integers(0, 2, 160)
    cases = TreatedRows(x, arm * (1 + x[:, 0]) + rng.normal(size=160), arm, task, 8)
    mu = np.zeros((160, 2))
    return cases, TaskNuisances(mu, mu, np.full((160, 2), 0.5), np.zeros(160, bool))


def test_an_effect_is_what_the_estimator_predicts_of_pseudo_outcomes(rows):
    cases, nuisances = rows
    scoring = Scoring("dr", np.ones(2))
    effects = MetaEffects.fit(TaskRidge(), scoring, cases, nuisances)
    (scored,) = scoring(cases, nuisances)
    oracle = TaskRidge().fit(cases.x, scored.psi, groups=cases.task)
    expected = oracle.adapt(cases.x, scored.psi, groups=cases.task).predict(
        cases.x, groups=cases.task
    )
    state = effects.adapt(cases, nuisances)
    effect, variance = effects.contrast(cases, state, *VECTORS)
    np.testing.assert_array_equal(effect, expected)
    assert variance is None
    assert effects.average(cases, state, *VECTORS) == (pytest.approx(expected.mean()), None)
    nobody = effects.adapt(cases.take(np.zeros(160, bool)), TaskNuisances(*[np.zeros((0, 2))] * 4))
    np.testing.assert_array_equal(
        effects.contrast(cases, nobody, *VECTORS)[0], oracle.predict(cases.x)
    )


def test_outcomes_of_arms_differ_by_the_effect(rows):
    cases, nuisances = rows
    effects = MetaOutcomes.fit(TaskRidge(), cases, nuisances)
    state = effects.adapt(cases, nuisances)
    low, high = (effects.predict(cases, state, given) for given in VECTORS)
    np.testing.assert_array_equal(effects.contrast(cases, state, *VECTORS)[0], high - low)
    with pytest.raises(DataError, match="no attention weights"):
        effects.support_weights(cases, state, *VECTORS)
