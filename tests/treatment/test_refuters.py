"""Refuters estimate no effect where there is none by construction."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from ehrmeta.errors import DataError
from ehrmeta.treatment import refute
from tests.treatment.sites import fitted, plain, simulate


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
