"""Where tasks are cohorts: the mixed-effects logistic and linear regression, and what is above."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from ehrmeta import MLP, Adapted, DeepMixedEffects, MetaClassifier, MetaRegressor, make_cohorts
from ehrmeta.algorithms import Spec
from ehrmeta.algorithms.deep_mixed_effects.course import N_KNOTS, Curve, Form
from ehrmeta.algorithms.deep_mixed_effects.start import MixedStart
from ehrmeta.data import Feature, Outcome, Schema
from ehrmeta.errors import DataError
from ehrmeta.nn.batch import TaskSet
from ehrmeta.nn.likelihoods import Bernoulli

PLAIN = {"n_deep": 0, "deep_mean": False, "feature_slopes": True}


def cohorts(**settings):
    return make_cohorts(20, n_patients=(60, 120), random_state=3, **settings)


def adapted_intercept(beta, sd, x, y, *, mean=False):
    """Shift of the log-odds of one task, random intercept only, all parameters given."""
    algorithm = DeepMixedEffects(**PLAIN, expectation_propagation=mean)
    n_features = x.shape[1]
    spec = Spec(MLP((4,)).network(n_features, 1), Bernoulli(), n_features)
    params = algorithm.init(spec, torch.Generator().manual_seed(0))
    params |= {
        "intercept": torch.tensor(beta[0]),
        "beta": torch.tensor(beta[1:]).float(),
        "root": torch.zeros(2, 2),
        "slope_root": torch.diag(torch.tensor([sd, *[0.0] * (n_features + 1)])),
    }
    zeros = torch.zeros(len(y))
    x, y = torch.from_numpy(x).float(), torch.from_numpy(y).float()
    rows = TaskSet(x, y, zeros.double(), torch.ones(len(y)).bool(), torch.ones(len(y)), zeros)
    state = algorithm.adapt(spec, params, rows)
    parts = algorithm._parts(spec, params, state, rows)
    shift, _, _ = algorithm._posterior(params, state, parts)
    return float(shift[0])


def test_the_adapted_intercept_is_the_posterior_mode_of_statsmodels():
    glm = pytest.importorskip("statsmodels.genmod.bayes_mixed_glm")
    found = cohorts(slope_sd=0.0)
    x, codes = found.X[:, :3], found.groups
    exog, sites = np.column_stack([np.ones(len(x)), x]), np.eye(20)[codes]
    oracle = glm.BinomialBayesMixedGLM(found.y, exog, sites, np.zeros(20, int))
    fitted = oracle.fit_vb()
    beta, log_sd = fitted.fe_mean, fitted.vcp_mean

    def loss(effects):
        params = np.concatenate([beta, log_sd, effects])
        return -oracle.logposterior(params), -oracle.logposterior_grad(params)[-20:]

    mode = minimize(loss, np.zeros(20), jac=True).x
    assert np.std(mode) > 0.3
    for site in range(20):
        rows = codes == site
        ours = adapted_intercept(beta, float(np.exp(log_sd[0])), x[rows], found.y[rows])
        assert ours == pytest.approx(mode[site], abs=1e-2)


@pytest.mark.parametrize("n_events", [0, 1, 5, 60])
def test_the_mode_is_the_mode_where_the_outcome_is_rare(n_events):
    """At a prevalence of half a percent, with no event, few and far too many."""
    y = (np.arange(60) < n_events).astype(float)
    intercept, sd = -5.3, 1.2

    def loss(b):
        eta = intercept + b[0]
        return -np.sum(y * eta - np.logaddexp(0, eta)) + 0.5 * (b[0] / sd) ** 2

    mode = minimize(loss, [0.0], tol=1e-10).x[0]
    ours = adapted_intercept(np.array([intercept, 0.0]), sd, np.zeros((60, 1)), y)
    assert ours == pytest.approx(mode, abs=1e-3)


@pytest.mark.parametrize("n_rows", [3, 60])
@pytest.mark.parametrize("sd", [0.8, 2.5])
def test_the_mean_is_the_mean_by_quadrature(sd, n_rows):
    """Of a support of one class, whose mode lies far from it: in both forms of conditioning."""
    nodes = np.linspace(-12, 12, 4001)
    log_density = n_rows * -np.logaddexp(0, -(0.5 + nodes)) - 0.5 * (nodes / sd) ** 2
    density = np.exp(log_density - log_density.max())
    exact = (density @ nodes) / density.sum()
    found = [
        adapted_intercept(np.array([0.5, 0.0]), sd, np.zeros((n_rows, 1)), np.ones(n_rows), mean=m)
        for m in (False, True)
    ]
    assert found[0] < exact - 0.02
    assert found[1] == pytest.approx(exact, abs=0.02 * sd)


def test_most_of_the_gap_to_the_bayes_rule_is_closed():
    found = make_cohorts(40, n_patients=(100, 200), slope_sd=0.8, random_state=11)
    test = found.groups >= 30
    within = np.arange(len(found.y)) - np.searchsorted(found.groups, found.groups)
    support, query = test & (within < 50), test & (within >= 50)
    p = {"bayes": found.bayes_rule(support, query)}
    for name, slopes in (("intercept", False), ("slopes", True)):
        algorithm = DeepMixedEffects(feature_slopes=slopes)
        model = MetaClassifier(algorithm, random_state=0, verbose=False)
        model.fit(found.X[~test], found.y[~test], groups=found.groups[~test])
        adapted = model.adapt(found.X[support], found.y[support], groups=found.groups[support])
        p[name] = adapted.predict_proba(found.X[query], groups=found.groups[query])[:, 1]
    y = found.y[query]
    loss = {name: -np.mean(np.log(np.where(y == 1, q, 1 - q))) for name, q in p.items()}
    assert loss["bayes"] < loss["slopes"] < loss["intercept"]
    closed = (loss["intercept"] - loss["slopes"]) / (loss["intercept"] - loss["bayes"])
    assert closed > 0.7


def test_slopes_of_a_real_valued_outcome_are_estimated():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 40)
    X = rng.normal(size=(1200, 3))
    slope = rng.normal(size=31)
    y = X[:, 0] * (1.0 + slope[groups]) + 0.3 * rng.normal(size=1200)
    model = MetaRegressor(DeepMixedEffects(feature_slopes=True), random_state=0)
    model.fit(X, y, groups=groups)
    support = rng.normal(size=(20, 3))
    adapted = model.adapt(support, support[:, 0] * 3.0)
    np.testing.assert_allclose(adapted.predict(np.eye(3)), [3.0, 0.0, 0.0], atol=0.2)


@pytest.mark.filterwarnings("ignore:a model with population=")
@pytest.mark.parametrize("weight", [None, "balanced"])
def test_a_classifier_below_is_calibrated_whatever_its_class_weights(weight):
    """alpha takes back what class weights put in, and integrating what pooling flattened."""
    found = make_cohorts(30, n_patients=(100, 200), slope_sd=0.0, random_state=5)
    test = found.groups >= 20
    population = LogisticRegression(class_weight=weight)
    model = MetaClassifier(
        DeepMixedEffects(**PLAIN), population=population, random_state=0, verbose=False
    ).fit(found.X[~test], found.y[~test], groups=found.groups[~test])
    p = model.predict_proba(found.X[~test])[:, 1]
    assert p.mean() / found.y[~test].mean() == pytest.approx(1.0, abs=0.05)
    gain = float(model.model_.learner.params["offset_gain"])
    assert 1.0 < gain < 1.4, "a pooled classifier is marginal: conditional odds are steeper"


def test_a_rare_outcome_with_supports_of_one_class_stays_calibrated():
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(60), 300)
    X = rng.normal(size=(len(groups), 2))
    shift = rng.normal(size=60) * 0.7
    y = (rng.random(len(groups)) < expit(-5.8 + shift[groups] + X[:, 0])).astype(int)
    test = groups >= 40
    assert 0.004 < y.mean() < 0.01
    model = MetaClassifier(DeepMixedEffects(**PLAIN), max_steps=1, random_state=0, verbose=False)
    model.fit(X[~test], y[~test], groups=groups[~test])
    support = test & (np.arange(len(y)) % 300 < 50)
    query = test & ~support
    assert (np.bincount(groups[support] - 40, y[support]) == 0).any(), "supports without an event"
    adapted = model.adapt(X[support], y[support], groups=groups[support])
    p = adapted.predict_proba(X[query], groups=groups[query])[:, 1]
    assert np.isfinite(p).all()
    assert 0.6 < p.sum() / y[query].sum() < 1.6
    none = model.adapt(X[:50], np.zeros(50, int)).predict_proba(X[:1])[0, 1]
    assert 0 < none < model.predict_proba(X[:1])[0, 1]


@pytest.mark.filterwarnings("ignore:a model with population=")
@pytest.mark.parametrize("population", [None, LogisticRegression()], ids=["alone", "above"])
def test_cases_and_controls_are_taken_back_to_the_prevalence(population, tmp_path):
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(20), 400)
    X = rng.normal(size=(len(groups), 2))
    shift = rng.normal(size=21) * 0.5
    p = expit(-3.5 + shift[groups] + X[:, 0])
    y = (rng.random(len(groups)) < p).astype(int)
    model = MetaClassifier(DeepMixedEffects(**PLAIN), population=population, verbose=False)
    model.fit(X, y, groups=groups)
    new = rng.normal(size=(20_000, 2))
    truth = expit(-3.5 + 0.8 + new[:, 0])
    label = (rng.random(len(new)) < truth).astype(int)
    drawn = np.concatenate([np.flatnonzero(label == c)[:100] for c in (0, 1)])
    naive = model.adapt(new[drawn], label[drawn]).predict_proba(new)[:, 1]
    adapted = model.adapt(new[drawn], label[drawn], prevalence=label.mean())
    found = adapted.predict_proba(new)[:, 1]
    assert naive.mean() > 2 * label.mean()
    assert found.mean() == pytest.approx(label.mean(), rel=0.15)
    if population is None:
        adapted.save(tmp_path / "site.ehrmeta")
        again = Adapted.load(tmp_path / "site.ehrmeta").predict_proba(new)[:, 1]
        np.testing.assert_array_equal(again, found)
    with pytest.raises(DataError, match="one class only"):
        model.adapt(new[:9], np.zeros(9, int), prevalence=0.05)
    with pytest.raises(DataError, match="between 0 and 1"):
        model.adapt(new[drawn], label[drawn], prevalence=5.0)


def test_time_is_refused():
    found = cohorts()
    model = MetaClassifier(DeepMixedEffects(feature_slopes=True), known=[], verbose=False)
    with pytest.raises(DataError, match="no order"):
        model.fit(found.X, found.y, groups=found.groups, time=np.arange(len(found.y)))


def test_files_name_levels_of_enough_patients_of_few_cohorts():
    """A genotype that hundreds of patients at three hospitals have identifies nobody."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(3), 100)
    genotype = np.where(rng.random(300) < 0.3, "A/G", "G/G").astype(object)
    genotype[:4] = "A/A"
    X = pd.DataFrame({"genotype": genotype})
    y = (rng.random(300) < 0.4).astype(int)
    names = {}
    for kind in ("patient", "cohort"):
        schema = Schema((Feature("genotype", "categorical"),), Outcome("event"), task_kind=kind)
        model = MetaClassifier(DeepMixedEffects(**PLAIN), schema=schema, verbose=False)
        encoder = model.fit(X, y, groups=groups).table_.encoder
        assert "A/A" in " ".join(encoder.fixed_names)
        names[kind] = " ".join(encoder.without_rare_levels()[0].fixed_names)
    assert "A/G" in names["cohort"]
    assert "A/A" not in names["cohort"], "four patients are too few to be named"
    assert "A/G" not in names["patient"]


def test_steadier_moves_the_variance_in_time_to_the_intercept():
    start = MixedStart(
        intercept=0.0,
        beta=np.zeros(1),
        beta_elapsed=0.0,
        root=np.array([[1.0, 0.0, 0.0], [0.2, 0.5, 0.0], [0.1, 0.0, 0.3]]),
        process_var=0.8,
        tau=1.0,
        noise_var=1.0,
        log_unit=0.0,
        time_scale=1.0,
        mean_elapsed=0.0,
        clock=np.zeros(2),
        form=Form(own=True, process=True),
        curve=Curve(np.zeros(N_KNOTS), np.zeros((2, N_KNOTS - 2))),
    )
    steady = start.steadier(0.25)
    assert steady.process_var == pytest.approx(0.2)
    assert steady.root[0, 0] ** 2 + steady.process_var == pytest.approx(1.0 + 0.8)
    np.testing.assert_allclose(steady.root[1:], 0.5 * start.root[1:])
    assert start.has_process
    assert not start.steadier(0.0).has_process
