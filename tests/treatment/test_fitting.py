"""Settings that no fit can use are refused; every learner learns from the same nuisances."""

import numpy as np
import pytest

from ehrmeta.baselines import TaskRidge
from ehrmeta.errors import DataError
from ehrmeta.treatment.arms import Arms
from ehrmeta.treatment.fitting import EffectSettings, fit_effect_model
from ehrmeta.treatment.treated_rows import TreatmentEncoder, read_treated
from tests.treatment.sites import fitted, plain, simulate


@pytest.fixture(scope="module")
def train():
    return simulate(12, 40)


def test_a_model_is_learned_without_the_estimator(train):
    table = read_treated(train.X, train.y, treatment=train.treatment, groups=train.groups)
    encoder = TreatmentEncoder.fit(table, Arms.fit(table.treatment))
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    response = fitted(plain(), train)
    settings = EffectSettings(
        propensity=response.propensity, outcome=response.outcome, final="linear", random_state=seed
    )
    model, _, scores = fit_effect_model(encoder, encoder.rows(table), settings)
    query = encoder.query(train.X, None, encoder.no_rows(), "error").rows
    effect, _ = model.contrast(query, model.population, *model.treatment.pair())
    np.testing.assert_array_equal(effect, response.effect(train.X))
    assert scores == response.form_scores_


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learner": "q"}, "learner must be one of"),
        ({"clip": 0.7}, "clip must lie"),
        ({"n_folds": 1}, "n_folds must be 2 or more"),
        ({"final": "cubic"}, "final must be"),
        ({"control": 5}, "control=5 is not an arm"),
        ({"outcome": "boosting"}, "outcome= must be a scikit-learn estimator"),
        ({"discrete_treatment": False}, "compares arms"),
        ({"discrete_treatment": False, "learner": "s"}, "needs estimator="),
        ({"learner": "t", "estimator": TaskRidge()}, "does not take estimator="),
    ],
)
def test_bad_settings_are_refused(train, settings, message):
    with pytest.raises(DataError, match=message):
        fitted(plain(**settings), train)
