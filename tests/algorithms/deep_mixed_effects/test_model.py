"""Law 4: with every extra off it is the mixed model; law 5: it consumes what it is given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
import torch
from sklearn.base import clone

from ehrmeta import DeepMixedEffects, MetaClassifier, MetaRegressor, make_sinusoid
from ehrmeta.algorithms import Spec
from ehrmeta.baselines import MixedEffects
from ehrmeta.nn import MLP, Bernoulli, Normal, StudentT, TaskSet
from ehrmeta.nn.mixed_process import condition, condition_effects, posterior, posterior_effects
from tests.algorithms.one_task import N_FEATURES, points
from tests.estimators.patients import make_patients

MIXED = DeepMixedEffects(ornstein_uhlenbeck=False, n_deep=0, deep_mean=False, correction=False)


def _reaction_times(n_subjects: int = 18, n_days: int = 10) -> pd.DataFrame:
    """Like the sleep deprivation study: a level and a slope of each subject's own."""
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(n_subjects), n_days)
    day = np.tile(np.arange(float(n_days)), n_subjects)
    own = rng.multivariate_normal([0, 0], [[600, 10], [10, 35]], n_subjects)
    y = 251 + 10.5 * day + own[subject, 0] + own[subject, 1] * day + rng.normal(0, 25, len(day))
    return pd.DataFrame({"subject": subject, "day": day, "y": y})


def _set(day: np.ndarray, y: np.ndarray | None = None, *, last: float) -> TaskSet:
    time = torch.tensor(day) - last
    ones = torch.ones_like(time)
    return TaskSet(
        x=torch.tensor(day)[:, None],
        y=torch.zeros_like(time) if y is None else torch.tensor(y),
        time=time,
        mask=ones.bool(),
        weight=ones,
        offset=torch.zeros_like(time),
    )


def test_equals_statsmodels_random_effects_and_their_covariance():
    table = _reaction_times()
    oracle = smf.mixedlm("y ~ day", table, groups="subject", re_formula="~day").fit()
    spec = Spec(MLP((4,)).network(1, 1), Normal(), 1)
    params = {k: p.double() for k, p in MIXED.init(spec, torch.Generator().manual_seed(0)).items()}
    params |= {
        "intercept": torch.tensor(oracle.fe_params["Intercept"]),
        "beta": torch.tensor([oracle.fe_params["day"]]),
        "root": torch.tensor(np.linalg.cholesky(oracle.cov_re.to_numpy())),
        "likelihood.log_within": torch.tensor(0.5 * np.log(oracle.scale)),
    }
    queried = np.array([0.0, 3.5, 12.0])
    z = np.column_stack([np.ones(3), queried])
    for subject in (0, 7):
        own = table[table.subject == subject]
        support = _set(own.day.to_numpy(), own.y.to_numpy(), last=9.0)
        state = MIXED.adapt(spec, params, support)
        query = _set(queried, last=9.0)
        found = MIXED.predict(spec, params, state, query)
        effects = oracle.random_effects[subject].to_numpy()
        expected = z @ (oracle.fe_params.to_numpy() + effects)
        np.testing.assert_allclose(found["loc"], expected, rtol=1e-6)
        variance = np.einsum("ij,jk,ik->i", z, oracle.random_effects_cov[subject].to_numpy(), z)
        np.testing.assert_allclose(found["scale"] ** 2, variance + oracle.scale, rtol=1e-6)
        prior = np.einsum("ij,jk,ik->i", z, oracle.cov_re.to_numpy(), z)
        weight = MIXED.own_weight(spec, params, state, query)
        np.testing.assert_allclose(weight, 1 - variance / prior, rtol=1e-5)


def test_untrained_it_predicts_like_the_mixed_model_baseline():
    """Through the estimators: REML start, standardisation and encoding included."""
    X, y, groups, time = make_patients(n_patients=15)  # too few to hold any out
    support, query = time < 90, time >= 90
    queried = {"groups": groups[query], "time": time[query]}
    given = {"groups": groups[support], "time": time[support]}
    ours = MetaRegressor(MIXED, random_state=0).fit(X, y, groups=groups, time=time)
    assert ours.history_ == [], "without held-out tasks it stays at its start"
    theirs = MixedEffects().fit(X, y, groups=groups, time=time)
    np.testing.assert_allclose(
        ours.adapt(X[support], y[support], **given).predict(X[query], **queried),
        theirs.adapt(X[support], y[support], **given).predict(X[query], **queried),
        rtol=2e-4,
    )


def test_own_weight_goes_from_zero_to_one():
    X, y, groups, time = make_patients(n_patients=30, n_visits=12)
    model = MetaRegressor(DeepMixedEffects(), max_steps=20, random_state=0, verbose=False)
    model.fit(X, y, groups=groups, time=time)
    weights = []
    for shots in (0, 1, 3, 11):
        one = model.adapt(X[:shots], y[:shots], time=time[:shots])
        weights.append(float(one.own_weight(X[11:12], time=time[11:12])[0]))
    assert weights == sorted(weights)
    assert weights[0] == 0.0
    assert weights[-1] > 0.8


def test_a_step_of_training_needs_a_gain_on_held_out_tasks():
    """With pure noise there is nothing to gain: the start is kept."""
    X, y, groups, time = make_patients(n_patients=40)
    noise = np.random.default_rng(0).normal(size=len(y))
    model = MetaRegressor(DeepMixedEffects(), max_steps=60, random_state=0, verbose=False)
    model.fit(X, noise, groups=groups, time=time)
    assert float(model.model_.learner.params["mean_gain"]) == 0.0
    assert not model.model_.learner.params["correction_gain"].any()


def test_conditioning_equals_the_dense_formula_and_ignores_padding():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    kernel, residual = root @ root.mT, torch.randn(7, generator=generator, dtype=torch.float64)
    noise, mask = torch.full((5,), 0.3, dtype=torch.float64), torch.tensor([1, 1, 0, 1, 0]).bool()
    state = condition(kernel[:5, :5], residual[:5] + 1e3 * ~mask, noise, mask)
    mean, variance = posterior(state, kernel[5:, :5], kernel.diagonal()[5:])
    seen = torch.tensor([0, 1, 3])
    gram = kernel[seen][:, seen] + 0.3 * torch.eye(3, dtype=torch.float64)
    gain = kernel[5:][:, seen] @ torch.linalg.inv(gram)
    torch.testing.assert_close(mean, gain @ residual[seen])
    expected = kernel.diagonal()[5:] - (gain * kernel[5:][:, seen]).sum(1)
    torch.testing.assert_close(variance, expected)


@pytest.mark.parametrize("timed", [True, False])
def test_it_works_with_and_without_time(timed):
    X, y, groups, time = make_patients(n_patients=40)
    keywords = {"time": time} if timed else {}
    model = MetaRegressor(DeepMixedEffects(), max_steps=30, random_state=0, verbose=False)
    model.fit(X, y, groups=groups, **keywords)
    part = {name: value[:4] for name, value in keywords.items()}
    rest = {name: value[4:6] for name, value in keywords.items()}
    low, high = model.adapt(X[:4], y[:4], **part).predict_interval(X[4:6], **rest).T
    assert np.all(low < high)


def test_weight_space_equals_function_space():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    residual = torch.randn(40, generator=generator, dtype=torch.float64)
    noise = 0.1 + torch.rand(40, generator=generator, dtype=torch.float64)
    mask = torch.arange(40) % 5 > 0
    seen, queried = root[:40], root[40:]
    plain = condition(seen @ seen.mT, residual, noise, mask)
    expected = posterior(plain, queried @ seen.mT, queried.square().sum(1))
    found = posterior_effects(condition_effects(seen, residual, noise, mask), queried)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("likelihood", [Normal(), StudentT(), Bernoulli()], ids=repr)
def test_many_rows_are_adapted_in_weight_space_with_the_same_result(likelihood):
    """More rows than effects take the other form; a row of weight 0 changes it and nothing else."""
    algorithm = DeepMixedEffects(ornstein_uhlenbeck=False, n_deep=2)
    spec = algorithm.spec(MLP((6,)), likelihood, N_FEATURES)
    params = algorithm.init(spec, torch.Generator().manual_seed(0))
    params = {name: value.double() for name, value in params.items()}
    few, query = points(4), points(3, seed=1)
    few = few._replace(y=(few.y > 0).double())
    nobody = points(3, seed=2)
    nobody = nobody._replace(mask=~nobody.mask, weight=0 * nobody.weight)
    many = TaskSet(*(torch.cat(pair) for pair in zip(few, nobody, strict=True)))
    states = [algorithm.adapt(spec, params, rows) for rows in (few, many)]
    assert ["b" in state for state in states] == [False, True]
    found = [algorithm.predict(spec, params, state, query) for state in states]
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-8)


def test_student_t_forgives_what_normal_noise_follows():
    """One gross value among five: the predicted level moves by a tenth of what it would."""
    moved = {}
    for likelihood in (Normal(), StudentT()):
        spec = MIXED.spec(MLP((4,)), likelihood, N_FEATURES)
        params = MIXED.init(spec, torch.Generator().manual_seed(0))
        params = {name: value.double() for name, value in params.items()}
        support, query = points(5), points(1, seed=1)
        gross = support._replace(y=torch.where(torch.arange(5) == 2, 50.0, support.y))
        level = [
            MIXED.predict(spec, params, MIXED.adapt(spec, params, rows), query)["loc"]
            for rows in (support, gross)
        ]
        moved[type(likelihood)] = float((level[1] - level[0]).abs())
    assert moved[Normal] > 1
    assert moved[StudentT] < 0.1 * moved[Normal]


def test_laplace_is_at_the_mode_of_the_posterior():
    spec = MIXED.spec(MLP((4,)), Bernoulli(), N_FEATURES)
    params = MIXED.init(spec, torch.Generator().manual_seed(0))
    params = {name: value.double() for name, value in params.items()}
    params |= {"root": 3.0 * torch.eye(2).double(), "beta": torch.tensor([0.5, -1, 0]).double()}
    support = points(3)
    support = support._replace(y=torch.tensor([1.0, 1.0, 0.0]).double())
    laplace = clone(MIXED).set_params(expectation_propagation=False)
    state = laplace.adapt(spec, params, support)
    mean, effects, _, _ = MIXED._parts(spec, params, state, support)
    b = state["b"] if "b" in state else effects.mT @ state["alpha"]
    slope = effects.mT @ (support.y - torch.sigmoid(mean + effects @ b)) - b
    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-6, rtol=0)


def test_it_classifies_with_a_level_of_each_patients_own():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(150), 12)
    X = rng.normal(size=(1800, 1))
    odds = rng.normal(0, 2, 150)[groups] + X[:, 0]
    y = rng.random(1800) < 1 / (1 + np.exp(-odds))
    model = MetaClassifier(DeepMixedEffects(), max_steps=50, random_state=0, verbose=False)
    model.fit(X, y, groups=groups)
    keep = np.arange(1800) % 12 < 8
    adapted = model.adapt(X[keep], y[keep], groups=groups[keep])
    p = adapted.predict_proba(X[~keep], groups=groups[~keep])[:, 1]
    base = model.predict_proba(X[~keep])[:, 1]
    assert np.mean((p - y[~keep]) ** 2) < 0.8 * np.mean((base - y[~keep]) ** 2)


@pytest.mark.filterwarnings("ignore:.*gross errors:ehrmeta.errors.DataWarning")
@pytest.mark.parametrize("likelihood", ["normal", "student_t"])
def test_it_survives_what_real_tables_do(likelihood):
    """1 to 200 uneven rows, gross errors, a feature mostly missing, and one that never varies."""
    rng = np.random.default_rng(0)
    sizes = np.concatenate([rng.integers(1, 15, 78), [200, 120]])
    groups = np.repeat(np.arange(80), sizes)
    n = len(groups)
    time = np.concatenate([np.cumsum(rng.exponential(10.0 ** rng.uniform(0, 3, k))) for k in sizes])
    X = pd.DataFrame({"rare": np.where(rng.random(n) < 0.95, np.nan, 1.0), "same": 7.0})
    X["age"] = rng.uniform(20, 80, n)
    level = rng.normal(0, 3, 80)
    clean = 50 + level[groups] + 0.1 * X.age.to_numpy() + rng.normal(0, 1, n)
    gross = rng.random(n) < 0.01
    y = np.where(gross, 1e4, clean)
    model = MetaRegressor(
        likelihood=likelihood,
        known=["rare", "age"],
        max_steps=100,
        learning_rate=3e-3,
        random_state=0,
        verbose=False,
    )
    model.fit(X, y, groups=groups, time=time)
    first = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes) < 5
    long = np.isin(groups, np.flatnonzero(sizes > 5))
    support, query = first & long, ~first & long
    with pytest.warns(UserWarning, match="unlike the training"):
        adapted = model.adapt(X[support], y[support], groups=groups[support], time=time[support])
    queried = {"groups": groups[query], "time": time[query]}
    found = adapted.predict(X[query], **queried)
    low, high = adapted.predict_interval(X[query], **queried).T
    assert np.isfinite(found).all() and np.all(low < high)
    error = np.median(np.abs(found - clean[query]))
    if likelihood == "student_t":
        assert error < 0.9 * np.median(np.abs(np.median(clean) - clean[query]))


@pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")
def test_student_t_takes_scores_that_mostly_repeat():
    """Their median distance from the task's median is 0."""
    rng = np.random.default_rng(0)
    groups, time = np.repeat(np.arange(60), 8), np.tile(np.arange(8.0), 60)
    y = rng.integers(8, 16, 60).astype(float)[groups]
    y += np.where(rng.random(480) < 0.3, rng.integers(-3, 3, 480), 0)
    X = rng.normal(size=(480, 1))
    model = MetaRegressor(
        likelihood="student_t", known=["x0"], max_steps=10, random_state=0, verbose=False
    )
    model.fit(X, y, groups=groups, time=time)
    seen = time < 4
    adapted = model.adapt(X[seen], y[seen], groups=groups[seen], time=time[seen])
    later = adapted.predict(X[~seen], groups=groups[~seen], time=time[~seen])
    assert np.abs(later - y[~seen]).mean() < 0.6 * np.abs(y - y.mean()).mean()


def test_few_tasks_widen_the_intervals_and_many_do_not():
    factors = {}
    for n_patients in (12, 60):
        X, y, groups, time = make_patients(n_patients=n_patients)
        model = MetaRegressor(MIXED, max_steps=1, random_state=0, verbose=False)
        model.fit(X, y, groups=groups, time=time)
        factors[n_patients] = model.model_.learner.params["inflation"].numpy()
    assert np.all(factors[12] > 1.005)
    assert np.all(factors[12] < 1.5)
    np.testing.assert_array_equal(factors[60], 1.0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")  # no random intercepts
def test_tasks_without_time_are_learned_from_a_few_rows():
    X, y, groups = make_sinusoid(n_tasks=2000, n_points=15, random_state=0)
    model = MetaRegressor(
        DeepMixedEffects(n_deep=40), shots=(5, 5), max_steps=150, learning_rate=5e-3, random_state=0
    ).fit(X, y, groups=groups)
    X, y, groups = make_sinusoid(n_tasks=200, n_points=25, random_state=1)
    seen = np.tile(np.arange(25) < 5, 200)
    found = model.adapt(X[seen], y[seen], groups=groups[seen])
    error = found.predict(X[~seen], groups=groups[~seen]) - y[~seen]
    assert np.mean(error**2) < 0.15 * np.mean(y**2)


def test_near_copies_of_a_feature_do_not_spoil_where_they_part():
    """As of a time beside its clock, where one of them is clipped: patient 0 alone lies beyond."""
    rng = np.random.default_rng(0)
    groups, hour = np.repeat(np.arange(30), 8), np.tile(np.arange(8.0), 30)
    y = hour + rng.normal(0, 1, 30)[groups] + rng.normal(0, 0.3, 240)
    late = np.where(groups == 0, hour + 20.0, hour)
    X = pd.DataFrame({"hour": late, "clipped": np.minimum(late, 7.0 - 1e-4)})
    seen = groups > 0
    model = MetaRegressor(DeepMixedEffects(), max_steps=1, random_state=0)
    model.fit(X[seen], y[seen], groups=groups[seen], time=hour[seen])
    assert np.abs(model.predict(X[~seen], time=hour[~seen]) - late[~seen]).max() < 10.0


@pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")
@pytest.mark.parametrize("n_tasks", [20, 100])
def test_atypical_p_values_are_uniform_under_the_model(n_tasks):
    """Tasks with an intercept, a slope and a process of their own, as those of the training."""

    def drawn(n, seed):
        rng, s = np.random.default_rng(seed), np.arange(6.0)
        covariance = 4 + 0.1 * np.outer(s, s) + 4 * np.exp(-abs(s[:, None] - s) / 3)
        y = rng.multivariate_normal(np.zeros(6), covariance + 0.25 * np.eye(6), n)
        return (
            rng.normal(size=(n, 1)).repeat(6, 0),
            y.ravel(),
            np.repeat(np.arange(n), 6),
            np.tile(s, n),
        )

    X, y, groups, time = drawn(n_tasks, 0)
    model = MetaRegressor(max_steps=1, random_state=0, verbose=False)
    model.fit(X, y, groups=groups, time=time)
    X, y, groups, time = drawn(1000, 1)
    for shots in (1, 3, 5):
        seen = time < shots
        rows = {"groups": groups[seen], "time": time[seen]}
        p = model.adapt(X[seen], y[seen], **rows).atypical_
        assert 0.02 < np.mean(p < 0.05) < 0.09 and np.mean(p < 0.001) < 0.006, shots
        assert np.mean(model.adapt(X[seen], y[seen] + 40, **rows).atypical_ < 0.001) > 0.95


def test_intervals_before_the_first_value_widen_where_tasks_start_together():
    """Slopes of sd 3, levels of sd 2; where tasks start at any time, s is unknown without rows."""
    rng, n, n_visits = np.random.default_rng(0), 45, 6
    elapsed = np.tile(np.arange(n_visits, dtype=float), n)
    level, slope = rng.normal(0, 2, n).repeat(n_visits), rng.normal(0, 3, n).repeat(n_visits)
    y = level + slope * elapsed + rng.normal(0, 0.5, len(level))
    late = rng.uniform(0, 20, n).repeat(n_visits)
    algorithm = clone(MIXED).set_params(trees=False)
    X, groups, asked = np.zeros((len(y), 1)), np.repeat(np.arange(n), n_visits), [0.0, 2.0, 5.0]
    widths = {}
    for start in (0.0, late):
        model = MetaRegressor(algorithm, max_steps=1, random_state=0, verbose=False)
        model.fit(X, y, groups=groups, time=start + elapsed)
        low, high = model.unadapted().predict_interval(X[:3], time=asked, confidence_level=0.9).T
        widths[np.ndim(start)] = high - low
    truth = 2 * 1.645 * np.sqrt(4.25 + 9 * np.square(asked))
    assert np.all(np.abs(np.log(widths[0] / truth)) < 0.3)
    np.testing.assert_allclose(widths[1], widths[1][0])
