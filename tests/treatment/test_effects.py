"""The population's effect is a weighted regression, and averages are those of its rows."""

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression

from ehrmeta.treatment.effects import MixedEffects, fit_population
from ehrmeta.treatment.learners import EffectForm, PseudoOutcomes
from ehrmeta.treatment.nuisances import TaskNuisances
from ehrmeta.treatment.treated_rows import TreatedRows

VECTORS = np.eye(2)[:, 1:]


def fitted(differ, n_tasks=40, n=50):
    rng = np.random.default_rng(0)
    task, x = np.repeat(np.arange(n_tasks), n), rng.normal(size=(n_tasks * n, 1))
    arm = rng.integers(0, 2, len(task))
    deviation = differ * rng.normal(size=n_tasks)
    effect = 1 + 0.5 * x[:, 0] + deviation[task]
    y = arm * effect + rng.normal(size=len(task))
    cases = TreatedRows(x, y, arm, task, n_tasks)
    mu = np.column_stack([np.zeros(len(task)), 1 + 0.5 * x[:, 0]])
    half = np.full((len(task), 2), 0.5)
    nuisances = TaskNuisances(mu, mu, half, np.zeros(len(task), bool))
    psi = (y - mu.mean(1)) / (arm - 0.5)
    pseudo = PseudoOutcomes(np.arange(len(task)), psi, rng.uniform(1, 2, len(task)))
    form = EffectForm("linear", None, None, {})
    learned = fit_population(cases, [form], [pseudo])
    effects, state = MixedEffects.fit(*learned, cases, nuisances, np.ones(2), [None])
    return effects, state, cases, pseudo


def test_the_populations_effect_is_weighted_least_squares():
    effects, _, cases, pseudo = fitted(0.0)
    oracle = LinearRegression().fit(cases.x, pseudo.psi, 1 / pseudo.variance)
    np.testing.assert_allclose(effects.population.predict(cases.x)[:, 0], oracle.predict(cases.x))
    assert effects.deviations.variation == "none"
    assert effects.quantile(0.975) == pytest.approx(stats.norm.ppf(0.975))


def test_an_average_is_the_mean_of_its_rows_and_surer_than_they_are():
    effects, state, cases, _ = fitted(1.0)
    mean, variance = effects.contrast(cases, state, *VECTORS)
    average, of_average = effects.average(cases, state, *VECTORS)
    assert average == pytest.approx(mean.mean())
    assert of_average < variance.min()
    one = cases.take(np.array([7]))
    assert effects.average(one, state, *VECTORS) == pytest.approx((mean[7], variance[7]))
    assert effects.quantile(0.975) == pytest.approx(stats.t.ppf(0.975, 39))


def test_outcomes_differ_by_the_effect():
    effects, state, cases, _ = fitted(1.0)
    reference = np.zeros(cases.n_rows), np.full((cases.n_rows, 1), 0.5)
    low, high = (effects.outcomes(cases, state, given, reference)[0] for given in VECTORS)
    np.testing.assert_allclose(high - low, effects.contrast(cases, state, *VECTORS)[0])
