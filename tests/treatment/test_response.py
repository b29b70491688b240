"""Laws of treatment response: what it equals, what adapting gains, what it refuses."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.linear_model import LinearRegression, LogisticRegression

from ehrmeta import MetaRegressor
from ehrmeta.baselines import TaskRidge
from ehrmeta.errors import DataError, DataWarning, GroupError, NotFittedError, SchemaError
from ehrmeta.treatment import TreatmentResponse
from ehrmeta.treatment.cross_fitting import cross_fit_folds
from tests.treatment.sites import adapted, fitted, pehe, plain, simulate


@pytest.fixture(scope="module")
def train():
    return simulate()


@pytest.fixture(scope="module")
def model(train):
    return fitted(plain(), train)


@pytest.fixture(scope="module")
def new():
    return simulate(20, 220, seed=1).split(20)


@pytest.mark.parametrize("probabilities", [0.5, "by row"])
def test_one_task_and_a_flat_prior_is_plain_doubly_robust_regression(probabilities):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3))
    p = np.full(300, 0.5) if probabilities == 0.5 else 1 / (1 + np.exp(-x[:, 0]))
    t = (rng.random(300) < p).astype(int)
    y = x @ [1, 2, 3] + t * (1 + x[:, 1]) + rng.normal(size=300)
    model = plain(propensity=None, clip=1e-6)
    model.fit(x, y, treatment=t, propensity=p)

    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    fold = cross_fit_folds(np.zeros(300, int), 1, 5, strata=t, random_state=seed)
    mu = np.empty((300, 2))
    for k in range(5):
        for arm in (0, 1):
            rows = (fold != k) & (t == arm)
            mu[fold == k, arm] = LinearRegression().fit(x[rows], y[rows]).predict(x[fold == k])
    psi = mu[:, 1] - mu[:, 0] + t * (y - mu[:, 1]) / p - (1 - t) * (y - mu[:, 0]) / (1 - p)
    noise = [np.mean((y - mu[:, arm])[t == arm] ** 2) for arm in (0, 1)]
    weight = 1 / (noise[1] / p + noise[0] / (1 - p))
    oracle = LinearRegression().fit(x, psi, weight)
    np.testing.assert_allclose(model.effect(x), oracle.predict(x), atol=1e-6)


def test_adapting_finds_the_effects_of_a_new_site(model, new):
    support, query = new
    sites = adapted(model, support)
    before = pehe(model.effect(query.X), query)
    assert pehe(sites.effect(query.X, groups=query.groups), query) < 0.75 * before
    interval = sites.effect_interval(query.X, groups=query.groups, confidence_level=0.9)
    inside = (interval[:, 0] <= query.effect) & (query.effect <= interval[:, 1])
    assert 0.82 < inside.mean() < 0.98
    unseen = model.effect_interval(query.X, confidence_level=0.9)
    assert np.ptp(interval, axis=1).mean() < 0.9 * np.ptp(unseen, axis=1).mean()


@pytest.mark.parametrize("learner", ["dr", "r", "x", "t"])
def test_where_sites_do_not_differ_each_has_the_populations_effect(learner):
    model = fitted(plain(learner=learner), simulate(differ=0.0, seed=2))
    support, query = simulate(20, 120, differ=0.0, seed=3).split(20)
    by_site = adapted(model, support).effect(query.X, groups=query.groups)
    assert pehe(by_site, query) <= 1.1 * pehe(model.effect(query.X), query)


@pytest.mark.parametrize("learner", ["dr", "r", "x", "t", "s"])
def test_confounded_sites_mislead_the_naive_difference_only(learner):
    sites = simulate(40, 100, seed=4)
    arms = [sites.y[sites.treatment == arm].mean() for arm in (0, 1)]
    assert abs(arms[1] - arms[0] - sites.effect.mean()) > 0.5
    model = fitted(plain(learner=learner), sites)
    low, high = model.tasks_.ate_interval(sites.X, groups=sites.groups)
    assert low - 0.05 < sites.effect.mean() < high + 0.05
    assert abs(model.tasks_.ate(sites.X, groups=sites.groups) - sites.effect.mean()) < 0.15


def test_arms_with_names():
    rng = np.random.default_rng(0)
    X, site = rng.normal(size=(900, 2)), np.repeat(np.arange(15), 60)
    arm = rng.integers(0, 3, 900)
    names = np.array(["placebo", "high", "low"])
    y = X[:, 0] + np.array([0.0, 2.0, 1.0])[arm] + rng.normal(size=900)
    model = plain(control="placebo", propensity={"placebo": 1 / 3, "high": 1 / 3, "low": 1 / 3})
    model.fit(X, y, treatment=names[arm], groups=site)
    assert model.treatment_.labels.tolist() == ["placebo", "high", "low"]
    effects = model.arm_effects(X[:50])
    np.testing.assert_allclose(effects.mean(0), [2, 1], atol=0.25)
    np.testing.assert_array_equal(model.marginal_effect("high", X[:50]), effects)
    between = model.effect(X[:50], T0="low", T1="high")
    np.testing.assert_allclose(between, effects[:, 0] - effects[:, 1])
    interval = model.effect_interval(X[:50], T0="low", T1="high")
    assert (np.ptp(interval, axis=1) > 0).all()
    with pytest.raises(DataError, match="T1= is required"):
        model.effect(X[:5])
    advice = model.recommend(X[:50], higher_is_better=True)
    assert set(advice.action) == {"high"}
    advice = model.recommend(X[:50], higher_is_better=True, costs={"high": 5.0})
    assert set(advice.action) == {"low"}
    assert set(model.recommend(X[:50], higher_is_better=False).action) == {"placebo"}


def test_an_outcome_of_0_and_1_has_differences_of_probabilities():
    rng = np.random.default_rng(0)
    X, site = rng.normal(size=(1200, 2)), np.repeat(np.arange(20), 60)
    t = rng.integers(0, 2, 1200)
    y = (rng.random(1200) < 0.3 + 0.3 * t).astype(int)
    model = plain(outcome=LogisticRegression(), propensity=0.5)
    model.fit(X, y, treatment=t, groups=site)
    assert model.ate(X) == pytest.approx(0.3, abs=0.08)
    low, high = model.tasks_.ate_interval(X, groups=site)
    assert low < 0.3 < high


def test_a_dose_has_an_effect_a_unit():
    rng = np.random.default_rng(0)
    X, site = rng.normal(size=(900, 2)), np.repeat(np.arange(15), 60)
    deviation = rng.normal(size=15) * 0.5
    dose = 1 + 0.5 * X[:, 0] + rng.normal(size=900)
    y = (
        X[:, 0]
        + deviation[site]
        + dose * (1 + deviation[site] + 0.3 * X[:, 1])
        + rng.normal(size=900)
    )
    model = plain(learner="r", discrete_treatment=False, propensity=LinearRegression())
    model.fit(X, y, treatment=dose, groups=site)
    effect = model.tasks_.effect(X, groups=site, T0=1.0, T1=3.0)
    truth = 2 * (1 + deviation[site] + 0.3 * X[:, 1])
    assert np.sqrt(np.mean((effect - truth) ** 2)) < 0.4
    interval = model.tasks_.effect_interval(X, groups=site, T0=1.0, T1=3.0)
    assert ((interval[:, 0] < truth) & (truth < interval[:, 1])).mean() > 0.8
    at_two = model.tasks_.potential_outcomes(X, 2.0, groups=site)
    at_one = model.tasks_.potential_outcomes(X, 1.0, groups=site)
    np.testing.assert_allclose(2 * (at_two - at_one), effect)
    slope = model.tasks_.marginal_effect(dose, X, groups=site)
    np.testing.assert_allclose(2 * slope, effect)
    np.testing.assert_allclose(slope, model.tasks_.marginal_effect(2.0, X, groups=site))
    with pytest.raises(DataError, match="the treatment is a dose"):
        model.arm_effects(X)
    with pytest.raises(DataError, match="T has 3 rows, X has 900"):
        model.marginal_effect([1.0, 2.0, 3.0], X)


@pytest.mark.parametrize("learner", ["dr", "s"])
def test_an_estimator_over_tasks_may_learn_the_effect(train, new, learner):
    support, query = new
    model = fitted(plain(estimator=TaskRidge(), learner=learner), train)
    effect = adapted(model, support).effect(query.X, groups=query.groups)
    assert np.isfinite(effect).all()
    assert np.isfinite(model.effect(query.X)).all()
    with pytest.raises(DataError, match="have no posterior"):
        model.effect_interval(query.X)


def test_a_meta_learner_learns_the_outcome_with_the_treatment_in_x(train, new):
    support, query = new
    estimator = MetaRegressor(max_steps=5, random_state=0, verbose=False)
    model = fitted(plain(estimator=estimator, learner="s"), train)
    before, sites = pehe(model.effect(query.X), query), adapted(model, support)
    assert pehe(sites.effect(query.X, groups=query.groups), query) < before + 0.1


def test_columns_of_a_frame_may_name_task_and_treatment(train):
    frame = pd.DataFrame(train.X, columns=["age", "bmi"])
    named = frame.assign(site=train.groups, arm=train.treatment)
    model = plain(task="site", treatment="arm").fit(named, train.y)
    other = plain().fit(frame, train.y, treatment=train.treatment, groups=train.groups)
    np.testing.assert_array_equal(model.effect(frame), other.effect(frame))
    np.testing.assert_array_equal(
        model.tasks_.effect(named), other.tasks_.effect(frame, groups=train.groups)
    )


def test_a_clone_is_the_same_model_unfitted(model):
    copy = clone(model)
    assert repr(model) == f"{copy!r}, control 0"
    with pytest.raises(NotFittedError):
        copy.effect([[0.0, 0.0]])


def test_known_propensities_replace_the_learned_ones(model):
    support = simulate(3, 30, seed=8)
    assert adapted(model, support).propensity_source_ == "learned"
    known = model.adapt(
        support.X,
        support.y,
        treatment=support.treatment,
        groups=support.groups,
        propensity=np.full(90, 0.5),
    )
    assert known.propensity_source_ == "supplied"


def test_small_propensities_are_raised_and_counted():
    sites = simulate(confounding=3.0, seed=9)
    with pytest.warns(DataWarning, match="below clip=0.1"):
        model = fitted(plain(clip=0.1), sites)
    assert model.tasks_.n_clipped_ > 0


BAD = {
    "unseen arm": ({"treatment": [2] * 4}, "not seen at fit"),
    "missing arm": ({"treatment": [0, 1, np.nan, 1]}, "is missing in 1 of 4 rows"),
    "short": ({"treatment": [0, 1]}, "treatment has 2 rows, X has 4"),
    "certain": ({"propensity": [0.0, 0.5, 1.0, 0.5]}, "strictly between 0 and 1 in 2 of 4 rows"),
    "early": (
        {"time": [1.0, 1, 1, 1], "outcome_time": [2.0, 0, 2, 2]},
        "known before the treatment in 1 of 4 rows .first: row 1.",
    ),
    "no order": ({"outcome_time": [2.0, 0, 2, 2]}, "requires time="),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_are_refused(model, case):
    changed, message = BAD[case]
    given = {"treatment": [0, 1, 0, 1]} | changed
    with pytest.raises(DataError, match=message):
        model.adapt(np.zeros((4, 2)), np.arange(4.0), **given)


@pytest.mark.parametrize("sites", [1, 6])
def test_a_text_confounder_is_adjusted_for_at_any_number_of_sites(sites):
    rng = np.random.default_rng(2)
    sick = rng.integers(0, 2, 1200)
    t = (rng.random(1200) < np.where(sick, 0.8, 0.2)).astype(int)
    y = 3.0 * sick + rng.normal(size=1200)
    X = pd.DataFrame({"severity": np.where(sick, "severe", "mild")})
    model = plain(final="constant").fit(X, y, treatment=t, groups=np.arange(1200) % sites)
    assert abs(model.ate(X)) < 0.3
    assert abs(y[t == 1].mean() - y[t == 0].mean()) > 1.5
    with pytest.warns(DataWarning, match="'severity': 1 with an unknown level"):
        model.effect(X[:1].assign(severity="Severe"))
    with pytest.raises(
        DataError, match="'severity' holds 2 levels .* only in leading zeros, capitals or spaces"
    ):
        model.effect(X.assign(severity=X["severity"].str.upper()))


def test_other_bad_input(model, train):
    with pytest.raises(DataError, match="1 arm in all"):
        plain().fit(train.X, train.y, treatment=np.ones(len(train.y)), groups=train.groups)
    with pytest.raises(DataError, match="pass discrete_treatment=False"):
        plain().fit(train.X, train.y, treatment=train.y, groups=train.groups)
    with pytest.raises(DataError, match="pass treatment="):
        plain().fit(train.X, train.y, groups=train.groups)
    with pytest.raises(SchemaError, match="differ from those passed to fit"):
        model.effect(np.zeros((2, 3)))
    with pytest.raises(DataError, match="confidence_level"):
        model.effect_interval(np.zeros((2, 2)), confidence_level=95)
    rare = np.where(train.groups == 0, train.treatment, 0)
    with pytest.raises(DataError, match="cannot be learned from other tasks"):
        plain().fit(train.X, train.y, treatment=rare, groups=train.groups)


def test_same_seed_same_numbers(train):
    X = np.zeros((1, 2))
    first, second = (fitted(TreatmentResponse(random_state=3), train).effect(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("in_table", [False, True])
@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_the_first_ordered_category_is_the_control_and_in_the_repr(kind, in_table):
    sites = simulate(6, 40)
    names = np.where(sites.treatment == 1, "drug", "placebo")
    levels = ["none", "placebo", "drug"]
    frame = pd.DataFrame({"a": sites.X[:, 0], "b": sites.X[:, 1]})
    if kind == "pandas":
        arm = pd.Series(pd.Categorical(names, categories=levels, ordered=True))
        table = frame.assign(arm=arm)
    else:
        frame, arm = pl.DataFrame(frame), pl.Series("arm", names, dtype=pl.Enum(levels))
        table = frame.with_columns(arm)
    if in_table:
        model = plain(treatment="arm").fit(table, sites.y, groups=sites.groups)
    else:
        model = plain().fit(frame, sites.y, treatment=arm, groups=sites.groups)
    assert model.treatment_.labels.tolist() == ["placebo", "drug"]
    assert repr(model).endswith(", control placebo")
    assert "control placebo" in repr(model.unadapted())


def test_the_population_has_no_groups(model, new):
    query = new[1]
    for given in ({"groups": query.groups}, {"new_groups": "nan"}):
        with pytest.raises(GroupError, match=r"is for the population.*call it on adapt"):
            model.effect(query.X, **given)
    with pytest.raises(GroupError, match="recommend of a TreatmentResponse"):
        model.recommend(query.X, higher_is_better=True, groups=query.groups)


def test_rows_of_several_tasks_are_not_predicted_from_one_support(model, new):
    support, query = new
    first, later = support.groups == support.groups[0], slice(0, 3)
    one = model.adapt(support.X[first], support.y[first], treatment=support.treatment[first])
    assert len(one.effect(query.X[later], groups=["a", "a", "a"])) == 3
    with pytest.raises(GroupError, match="of 2 tasks, but the model was adapted to one"):
        one.effect(query.X[later], groups=["a", "a", "b"])
