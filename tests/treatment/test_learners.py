"""The form of an effect is chosen by out-of-fold rows."""

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression

from ehrmeta.treatment.learners import PseudoOutcomes, choose_forms, fit_crossed
from ehrmeta.treatment.nuisances import fit_nuisances
from ehrmeta.treatment.treated_rows import TreatedRows


def crossed_values(cases, fold):
    nuisances, adapted = fit_nuisances(
        cases,
        2,
        fold,
        outcome=[HistGradientBoostingRegressor(max_iter=20)],
        propensity=np.array([0.5, 0.5]),
        clip=0.01,
    )
    return fit_crossed(cases, nuisances, adapted, fold, 0, 1, LinearRegression())[1]


def test_the_crossed_effect_does_not_depend_on_outcomes_of_its_fold():
    rng = np.random.default_rng(0)
    x, arm = rng.normal(size=(120, 2)), rng.integers(0, 2, 120)
    y = x[:, 0] + arm * x[:, 1] + rng.normal(size=120)
    fold, one_task = np.arange(120) % 4, np.zeros(120, np.int64)
    shifted = y + 10.0 * rng.normal(size=120) * (fold == 2)
    before, after = (
        crossed_values(TreatedRows(x, outcome, arm, one_task, 1), fold) for outcome in (y, shifted)
    )
    np.testing.assert_array_equal(before[fold == 2], after[fold == 2])
    assert not np.allclose(before[fold != 2], after[fold != 2])


def test_all_arms_have_one_form_and_scores_of_their_own():
    rng = np.random.default_rng(1)
    x, rows, noise = rng.normal(size=(200, 1)), np.arange(200), rng.normal(size=(2, 200))
    steep, flat = (
        PseudoOutcomes(rows, slope * x[:, 0] + e, np.ones(200))
        for slope, e in zip((2.0, 0.0), noise, strict=True)
    )
    one_task, fold = np.zeros(200, np.int64), rows % 4

    def forms(*arms):
        return choose_forms(x, arms, arms, one_task, fold)

    (alone,) = forms(flat)
    first, second = forms(steep, flat)
    assert alone.name == "constant"
    assert first.name == second.name == "linear"
    assert second.scores == alone.scores
    assert first.scores["linear"] > 0.5


def test_without_a_feature_that_varies_the_effect_is_constant():
    rng = np.random.default_rng(2)
    rows, one_task = np.arange(80), np.zeros(80, np.int64)
    effects = PseudoOutcomes(rows, rng.normal(size=80), np.ones(80))
    for x in (np.ones((80, 1)), np.empty((80, 0))):
        (form,) = choose_forms(x, [effects], [effects], one_task, rows % 4)
        assert form.name == "constant"
        assert form.scores == {"constant": 0.0}
