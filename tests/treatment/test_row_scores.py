"""Laws of what rows say by themselves: pooled effects, policies, rankings, diagnostics."""

import numpy as np
import pytest
from statsmodels.stats.meta_analysis import combine_effects

from ehrmeta.errors import DataError
from ehrmeta.treatment import pool_effects
from tests.treatment.sites import adapted, fitted, plain, simulate


@pytest.fixture(scope="module")
def model():
    return fitted(plain(), simulate())


@pytest.fixture(scope="module")
def new():
    return simulate(25, 80, seed=1)


@pytest.fixture(scope="module")
def sites(model, new):
    return adapted(model, new)


def test_effects_of_tasks_are_unbiased_and_cover(sites, new):
    by_site = sites.task_effects(confidence_level=0.9)
    truth = np.bincount(new.groups, new.effect) / 80
    assert by_site.index.tolist() == list(range(25))
    assert abs((by_site.effect - truth).mean()) < 0.15
    assert ((by_site.low < truth) & (truth < by_site.high)).mean() > 0.7


def test_the_pooled_effect_covers_the_mean_over_sites_and_predicts_new_ones(sites):
    pooled = sites.pooled_effect()
    assert pooled.interval[0] < 1 < pooled.interval[1]
    assert pooled.prediction_interval[0] < pooled.interval[0]
    assert pooled.tau == pytest.approx(0.7, abs=0.35)  # 0.7, and what features add


@pytest.mark.parametrize("method", ["dr", "ipw"])
def test_the_value_of_a_policy_is_the_mean_outcome_under_it(sites, new, method):
    everyone = sites.policy_value(1, method=method)
    no_one = sites.policy_value(0, method=method)
    best = sites.policy_value((new.effect > 0).astype(int), method=method)
    treated = new.y - new.treatment * new.effect + new.effect
    assert everyone.value == pytest.approx(treated.mean(), abs=4 * everyone.se)
    assert best.value > max(everyone.value, no_one.value)
    assert everyone.interval[0] < everyone.value < everyone.interval[1]
    assert everyone.n_eff < len(new.y)
    assert len(str(everyone)) < 100
    gain = np.maximum(new.effect, 0).mean() - new.effect.mean()
    assert best.value - everyone.value == pytest.approx(gain, abs=0.15)


def test_a_policy_tree_finds_who_gains():
    rng = np.random.default_rng(0)
    X, t = rng.normal(size=(1500, 2)), rng.integers(0, 2, 1500)
    y = X[:, 1] + t * np.where(X[:, 0] > 0, 1.0, -1.0) + rng.normal(size=1500)
    model = plain(propensity=0.5).fit(X, y, treatment=t)
    tree = model.tasks_.policy_tree(higher_is_better=True, max_depth=1)
    advice = tree.predict(model.tasks_.support.x)
    assert ((advice == 1) == (X[:, 0] > 0)).mean() > 0.9
    assert "x0" in str(tree)
    costly = model.tasks_.policy_tree(higher_is_better=True, max_depth=1, costs={1: 5.0})
    assert not costly.predict(model.tasks_.support.x).any()


@pytest.mark.parametrize("kind", ["autoc", "qini"])
def test_a_ranking_by_who_gains_beats_chance(sites, model, kind):
    assert sites.rate(kind=kind).low > 0
    with pytest.raises(DataError, match="trained on these rows"):
        model.tasks_.rate()


def test_effects_by_rank_rise_and_hold_the_truth(sites, model, new):
    groups = sites.effects_by_rank(n_groups=4)
    assert groups.n.tolist() == [500] * 4
    assert groups.effect.iloc[-1] > groups.effect.iloc[0]
    assert (groups.n * groups.effect).sum() / 2000 == pytest.approx(
        (sites.arm_scores()[:, 1] - sites.arm_scores()[:, 0]).mean()
    )
    order = np.argsort(np.argsort(model.unadapted().effect(new.X), kind="stable"), kind="stable")
    truth = np.array([new.effect[order // 500 == group].mean() for group in range(4)])
    assert np.all((groups.low - 0.2 < truth) & (truth < groups.high + 0.2))
    with pytest.raises(DataError, match="trained on these rows"):
        model.tasks_.effects_by_rank()
    with pytest.raises(DataError, match="n_groups must be"):
        sites.effects_by_rank(n_groups=0)


def test_weighting_balances_the_arms(sites):
    diagnostics = sites.diagnostics()
    assert diagnostics.balance.before.abs().max() > 0.2
    assert diagnostics.balance.after.abs().max() < 0.5 * diagnostics.balance.before.abs().max()
    assert diagnostics.overlap.sum().sum() == 2000
    assert diagnostics.e_value > diagnostics.e_value_limit > 1
    assert 0 < diagnostics.robustness_value < 1
    assert "E-value" in str(diagnostics)


def test_policies_and_methods_that_do_not_exist(sites):
    with pytest.raises(DataError, match="method must be"):
        sites.policy_value(1, method="guess")
    with pytest.raises(DataError, match="policy has 3 rows"):
        sites.policy_value([1, 0, 1])
    with pytest.raises(DataError, match="kind must be"):
        sites.rate(kind="auc")


def test_equals_statsmodels():
    rng = np.random.default_rng(0)
    se = rng.uniform(0.1, 0.5, 12)
    effect = 1 + 0.5 * rng.normal(size=12) + se * rng.normal(size=12)
    ours = pool_effects(effect, se)
    theirs = combine_effects(effect, se**2, method_re="iterated", use_t=True)
    assert ours.tau == pytest.approx(np.sqrt(theirs.tau2), rel=1e-4)
    assert ours.effect == pytest.approx(theirs.mean_effect_re, rel=1e-5)
    assert ours.se == pytest.approx(theirs.sd_eff_w_re_hksj, rel=1e-4)


def test_alike_effects_have_no_spread():
    pooled = pool_effects([1.0, 1.01, 0.99], [0.2, 0.2, 0.2])
    assert pooled.tau == 0
    assert pooled.se == pytest.approx(0.2 / np.sqrt(3))


def test_intervals_cover():
    rng = np.random.default_rng(1)
    mean, new = 0, 0
    for _ in range(300):
        se = rng.uniform(0.1, 0.5, 10)
        pooled = pool_effects(0.4 * rng.normal(size=10) + se * rng.normal(size=10), se)
        mean += pooled.interval[0] < 0 < pooled.interval[1]
        new += pooled.prediction_interval[0] < 0.4 * rng.normal() < pooled.prediction_interval[1]
    assert 0.91 < mean / 300 < 0.99
    assert 0.90 < new / 300 < 0.99


def test_few_tasks():
    assert pool_effects([2.0], [0.5]).prediction_interval == (-np.inf, np.inf)
    assert pool_effects([2.0, 1.0], [0.5, 0.5]).prediction_interval == (-np.inf, np.inf)
    with pytest.raises(DataError, match="positive standard error"):
        pool_effects([1.0, 2.0], [0.1, 0.0])


def test_prints_in_one_short_line():
    line = str(pool_effects([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]))
    assert line.startswith("effect 2 (")
    assert "sd over 3 tasks" in line
    assert len(line) < 100
