"""Scores without counterfactuals prefer what is nearer to the truth."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import cross_val_score

from ehrmeta import PatientKFold
from ehrmeta.errors import DataError
from ehrmeta.treatment import EffectScorer, refute
from tests.treatment.sites import fitted, plain, simulate

JUDGE = {"outcome": LinearRegression(), "propensity": LogisticRegression()}


@pytest.fixture(scope="module")
def table():
    sites = simulate(24, 60, seed=3)
    X = pd.DataFrame(sites.X, columns=["a", "b"])
    return X.assign(site=sites.groups, arm=sites.treatment), sites.y


@pytest.mark.parametrize("kind", ["r", "dr", "autoc", "qini"])
def test_a_linear_effect_beats_a_constant_one(table, kind):
    scores = [
        cross_val_score(
            plain(final=final, task="site", treatment="arm"),
            *table,
            scoring=EffectScorer(kind, **JUDGE),
            cv=PatientKFold(3, task="site", random_state=0),
        ).mean()
        for final in ("constant", "linear")
    ]
    assert scores[1] > scores[0] + 0.005


def test_the_score_sees_adaptation(table):
    scores = [
        cross_val_score(
            plain(task="site", treatment="arm"),
            *table,
            scoring=EffectScorer("r", shots=shots, **JUDGE),
            cv=PatientKFold(3, task="site", random_state=0),
        ).mean()
        for shots in (0, 30)
    ]
    assert scores[1] > scores[0]


def test_all_learners_are_scored_alike(table):
    scorer = EffectScorer("r", **JUDGE)
    X, y = table
    one, other = (
        plain(learner=name, task="site", treatment="arm").fit(X, y) for name in ("dr", "r")
    )
    assert scorer(one, X, y) == pytest.approx(scorer(other, X, y), abs=0.01)
    assert scorer(one, X, y) == scorer(one, X, y)


def test_unknown_kinds_are_refused(table):
    X, y = table
    model = plain(task="site", treatment="arm").fit(X, y)
    with pytest.raises(DataError, match="kind must be one of"):
        EffectScorer("auc")(model, X, y)


def test_refuters_find_no_effect():
    model = fitted(plain(), simulate())
    refits = refute(model, n_repeats=3)
    assert len(refits) == 6
    assert refits.holds_0.sum() >= 5
    assert refits.effect.abs().max() < 0.3


def test_a_dose_has_no_arms_to_deal():
    rng = np.random.default_rng(0)
    X, dose = rng.normal(size=(100, 1)), rng.normal(size=100)
    model = plain(learner="r", discrete_treatment=False, propensity=LinearRegression())
    model.fit(X, dose + rng.normal(size=100), treatment=dose)
    with pytest.raises(DataError, match="refute permutes arms"):
        refute(model)
