"""Laws of the linear mixed model: it equals statsmodels, also where the covariance is singular."""

import time
from itertools import pairwise

import numpy as np
import pytest
import statsmodels.api as sm

from ehrmeta.errors import DataError
from ehrmeta.nn import mixed_model
from ehrmeta.nn.mixed_model import fit_mixed_model, not_collinear, posterior, predict
from tests.nn.test_mixed_process import assert_gradient, searched


def simulate(sizes, G, sigma, *, extra=0, seed=0):
    """Rows of ``y = 250 + 10 t + x + b0 + b1 t + e`` in task order."""
    rng = np.random.default_rng(seed)
    sizes = np.asarray(sizes)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    tasks = np.repeat(np.arange(len(sizes)), sizes)
    n = len(tasks)
    days = rng.uniform(0, 9, n)
    x = np.column_stack([np.ones(n), days, rng.normal(size=(n, extra))])
    z = x[:, :2]
    b = rng.multivariate_normal(np.zeros(2), G, len(sizes))
    beta = np.concatenate([[250, 10], np.ones(extra)])
    y = x @ beta + np.sum(z * b[tasks], axis=1) + rng.normal(0, sigma, n)
    return x, z, y, starts, tasks


def sleepstudy():
    return simulate(np.full(18, 10), [[600, 10], [10, 35]], 25)


def ragged():
    sizes = np.random.default_rng(1).integers(1, 15, 300)
    return simulate(sizes, [[4, -1], [-1, 1]], 2, extra=3)


@pytest.mark.parametrize("data", [sleepstudy, ragged])
@pytest.mark.parametrize("reml", [True, False])
def test_equals_statsmodels(data, reml):
    x, z, y, starts, tasks = data()
    ours = fit_mixed_model(x, z, y, starts, reml=reml)
    theirs = sm.MixedLM(y, x, groups=tasks, exog_re=z).fit(reml=reml)
    np.testing.assert_allclose(ours.beta, theirs.fe_params, rtol=1e-3)
    np.testing.assert_allclose(ours.G, np.asarray(theirs.cov_re), rtol=1e-3)
    np.testing.assert_allclose(ours.noise_var, theirs.scale, rtol=1e-3)
    np.testing.assert_allclose(ours.log_likelihood, theirs.llf, rtol=1e-6)
    np.testing.assert_allclose(
        np.sqrt(np.diag(ours.beta_cov)), np.asarray(theirs.bse_fe), rtol=1e-2
    )  # statsmodels takes the Hessian, which also sees the variances

    mean, cov = posterior(ours, x, z, y, starts)
    their_mean = np.array([theirs.random_effects[i] for i in range(len(starts) - 1)])
    their_cov = np.array([theirs.random_effects_cov[i] for i in range(len(starts) - 1)])
    np.testing.assert_allclose(mean, their_mean, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(cov, their_cov, rtol=1e-3, atol=1e-3)


def test_unseen_patient_has_the_closed_formula():
    model = fit_mixed_model(*ragged()[:4])
    x, z, y, starts, _ = simulate([6], model.G, 2, extra=3, seed=5)
    mean, cov = posterior(model, x, z, y, starts)
    v_inv = np.linalg.inv(z @ model.G @ z.T + model.noise_var * np.eye(6))
    np.testing.assert_allclose(mean[0], model.G @ z.T @ v_inv @ (y - x @ model.beta))
    np.testing.assert_allclose(cov[0], model.G - model.G @ z.T @ v_inv @ z @ model.G)


def test_predictive_variance_is_that_of_the_joint_normal():
    model = fit_mixed_model(*ragged()[:4])
    x, z, y, _, _ = simulate([7], model.G, 2, extra=3, seed=5)
    mean, cov = posterior(model, x[:6], z[:6], y[:6], [0, 6])
    centre, variance = predict(model, x[6:], z[6:], np.array([0]), mean, cov)
    joint = z @ model.G @ z.T + model.noise_var * np.eye(7)
    gain = np.linalg.solve(joint[:6, :6], joint[:6, 6])
    np.testing.assert_allclose(centre, x[6] @ model.beta + gain @ (y[:6] - x[:6] @ model.beta))
    np.testing.assert_allclose(variance, joint[6, 6] - gain @ joint[:6, 6])


def test_task_without_rows_has_the_prior():
    x, z, y, starts, _ = ragged()
    model = fit_mixed_model(x, z, y, starts)
    mean, cov = posterior(model, x[:3], z[:3], y[:3], [0, 0, 3, 3])
    np.testing.assert_array_equal(mean[[0, 2]], 0)
    np.testing.assert_allclose(cov[[0, 2]], [model.G, model.G])
    assert np.all(np.diag(cov[1]) < np.diag(model.G))


def test_empty_tasks_do_not_change_the_fit():
    x, z, y, starts, _ = ragged()
    plain = fit_mixed_model(x, z, y, starts)
    padded = fit_mixed_model(x, z, y, np.concatenate([[0], starts, starts[-1:]]))
    np.testing.assert_allclose(padded.G, plain.G, rtol=1e-9)
    assert padded.n_tasks == plain.n_tasks == 300


def test_order_of_tasks_and_of_rows_within_changes_nothing():
    x, z, y, starts, tasks = ragged()
    rng = np.random.default_rng(0)
    order = np.lexsort((rng.random(len(y)), rng.permutation(300)[tasks]))
    new_starts = np.concatenate([[0], np.flatnonzero(np.diff(tasks[order])) + 1, [len(y)]])
    a = fit_mixed_model(x, z, y, starts)
    b = fit_mixed_model(x[order], z[order], y[order], new_starts)
    np.testing.assert_allclose(a.beta, b.beta, rtol=1e-6)
    np.testing.assert_allclose(a.G, b.G, rtol=1e-5)
    np.testing.assert_allclose(a.log_likelihood, b.log_likelihood, rtol=1e-10)


@pytest.mark.parametrize(
    "G",
    [[[4, 0], [0, 0]], [[0, 0], [0, 4]], [[0, 0], [0, 0]], [[4, 2], [2, 1]]],
    ids=["no-slope", "no-intercept", "neither", "collinear"],
)
def test_singular_covariance_is_a_maximum(G):
    x, z, y, starts, _ = simulate(np.tile([2, 3, 5, 6], 75), G, 3)
    model = fit_mixed_model(x, z, y, starts)
    assert model.log_likelihood >= marginal(x, z, y, starts, np.asarray(G, float), 9.0)
    nearby = [model.G + 0.05 * np.outer(v, v) for v in ([1, 0], [0, 1], [1, 1], [1, -1])]
    for moved in nearby:
        assert marginal(x, z, y, starts, moved, model.noise_var) < model.log_likelihood
    assert np.linalg.eigvalsh(model.G).min() > -1e-9
    mean, cov = posterior(model, x, z, y, starts)
    assert np.isfinite(mean).all() and np.isfinite(cov).all()


def marginal(x, z, y, starts, G, noise_var):
    """The restricted log likelihood, task by task, from its definition."""
    information, score, total = 0.0, 0.0, 0.0
    inverses = []
    for a, b in pairwise(starts):
        v = z[a:b] @ G @ z[a:b].T + noise_var * np.eye(b - a)
        inverses.append((a, b, np.linalg.inv(v)))
        information = information + x[a:b].T @ inverses[-1][2] @ x[a:b]
        score = score + x[a:b].T @ inverses[-1][2] @ y[a:b]
        total += np.linalg.slogdet(v)[1]
    residual = y - x @ np.linalg.solve(information, score)
    total += sum(residual[a:b] @ inverse @ residual[a:b] for a, b, inverse in inverses)
    total += np.linalg.slogdet(information)[1] + (len(y) - x.shape[1]) * np.log(2 * np.pi)
    return -0.5 * total


def test_likelihood_is_the_marginal_one():
    x, z, y, starts, _ = ragged()
    model = fit_mixed_model(x, z, y, starts)
    expected = marginal(x, z, y, starts, model.G, model.noise_var)
    np.testing.assert_allclose(model.log_likelihood, expected, rtol=1e-10)


def test_collinear_and_constant_columns_change_no_prediction():
    x, z, y, starts, _ = ragged()
    wide = np.column_stack([x, 3 * x[:, 2], np.full(len(y), 7.0), np.zeros(len(y))])
    plain, redundant = fit_mixed_model(x, z, y, starts), fit_mixed_model(wide, z, y, starts)
    np.testing.assert_allclose(wide @ redundant.beta, x @ plain.beta, rtol=1e-6)
    np.testing.assert_allclose(redundant.G, plain.G, rtol=1e-5)
    assert redundant.beta[-1] == 0
    assert np.isfinite(redundant.beta_cov).all()


def test_units_and_the_origin_of_time_do_not_matter():
    x, z, y, starts, _ = ragged()
    shift = np.array([[1.0, 2000.0], [0.0, 24.0]])  # days -> hours since a distant origin
    moved = fit_mixed_model(np.column_stack([z @ shift, x[:, 2:]]), z @ shift, y, starts)
    model = fit_mixed_model(x, z, y, starts)
    np.testing.assert_allclose(shift @ moved.G @ shift.T, model.G, rtol=1e-3)
    np.testing.assert_allclose(moved.noise_var, model.noise_var, rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_constant_outcome_is_fitted_exactly(value):
    x, z, _, starts, _ = ragged()
    model = fit_mixed_model(x, z, np.full(len(x), value), starts)
    np.testing.assert_allclose(x @ model.beta, value, atol=1e-6)
    assert np.isfinite(model.log_likelihood) and 0 < model.noise_var < 1e-6


def test_one_task_gives_finite_estimates():
    x, z, y, _, _ = ragged()
    model = fit_mixed_model(x[:40], z[:40], y[:40], [0, 40])
    mean, cov = posterior(model, x[:40], z[:40], y[:40], [0, 40])
    assert np.isfinite(model.G).all() and np.isfinite(mean).all() and np.isfinite(cov).all()


def test_eight_thousand_patients_take_about_a_second():
    x, z, y, starts, _ = simulate(np.full(8000, 12), [[90, 0], [0, 0.5]], 9, extra=10)
    begin = time.perf_counter()
    model = fit_mixed_model(x, z, y, starts)
    assert time.perf_counter() - begin < 10  # 0.5 s on an idle core; slack for a busy machine
    np.testing.assert_allclose(np.diag(model.G), [90, 0.5], rtol=0.1)


def test_errors_say_what_to_do():
    x, z, y, starts, _ = sleepstudy()
    with pytest.raises(DataError, match="do not fit together"):
        fit_mixed_model(x, z[:-1], y, starts)
    with pytest.raises(DataError, match="starts must run from 0"):
        fit_mixed_model(x, z, y, starts[:-1])
    with pytest.raises(DataError, match="sort the rows by task"):
        fit_mixed_model(x, z, y, [0, 90, 30, 180])
    with pytest.raises(DataError, match="1 NaN or infinite"):
        fit_mixed_model(x, z, np.where(np.arange(180) == 3, np.nan, y), starts)
    with pytest.raises(DataError, match="2 rows are too few to estimate 2 fixed effects"):
        fit_mixed_model(x[:2], z[:2], y[:2], [0, 2])
    with pytest.raises(DataError, match="column of ones"):
        fit_mixed_model(x, 0 * z, y, starts)


def test_a_pattern_separates_effects_or_makes_them_share():
    x, z, y, starts, _ = simulate(np.full(400, 12), np.diag([4.0, 1.0]), 2, seed=3)
    free = fit_mixed_model(x, z, y, starts)
    full = fit_mixed_model(x, z, y, starts, pattern=np.array([[0, -1], [1, 2]]))
    np.testing.assert_allclose(full.G, free.G, rtol=1e-3)
    apart = fit_mixed_model(x, z, y, starts, pattern=np.array([[0, -1], [-1, 1]]))
    np.testing.assert_allclose(np.diag(apart.G), np.diag(free.G), rtol=0.1)
    assert apart.G[0, 1] == 0
    assert apart.log_likelihood <= free.log_likelihood + 1e-6
    alike = fit_mixed_model(x, z, y, starts, pattern=np.array([[0, -1], [-1, 0]]))
    assert alike.G[0, 0] == pytest.approx(alike.G[1, 1])
    with pytest.raises(DataError, match="pattern has shape"):
        fit_mixed_model(x, z, y, starts, pattern=np.zeros((1, 1), int))


PATTERNS = {"free": None, "shared": np.array([[0, -1], [1, 0]])}


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("reml", [True, False])
def test_the_gradient_is_that_of_the_deviance(monkeypatch, reml, pattern):
    x, z, y, starts, _ = ragged()
    search, model = searched(
        monkeypatch,
        mixed_model,
        lambda: fit_mixed_model(x, z, y, starts, reml=reml, pattern=pattern),
    )
    assert search["start"].tolist() == ([1, 0, 1] if pattern is None else [1, 0])  # L = I
    assert set(search["bounds"]) == {(-1e4, 1e4)}  # of the sd over that of the noise
    for seed in range(3):
        at = search["start"] + np.random.default_rng(seed).normal(0, 0.3, len(search["start"]))
        assert_gradient(search["objective"], at)
    n = len(y)
    nu = n - x.shape[1] if reml else n
    moved = [1.01 * model.noise_var, model.noise_var / 1.01]
    if reml and pattern is None:
        for noise_var in moved:
            assert marginal(x, z, y, starts, model.G, noise_var) < model.log_likelihood
    residual = y - x @ model.beta
    weighted = sum(
        residual[a:b]
        @ np.linalg.solve(
            z[a:b] @ model.G @ z[a:b].T / model.noise_var + np.eye(b - a), residual[a:b]
        )
        for a, b in pairwise(starts)
    )
    assert model.noise_var == pytest.approx(weighted / nu)


WRONG = {
    "x of one axis": {"x": np.ones(6)},
    "z of one axis": {"z": np.ones(6)},
    "y of two axes": {"y": np.ones((6, 1))},
    "fewer rows of x": {"x": np.ones((5, 1))},
    "starts of two axes": {"starts": np.array([[0, 6]])},
    "starts not at 0": {"starts": np.array([1, 6])},
    "no starts": {"starts": np.array([], int)},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_parts_that_do_not_fit_are_refused(wrong):
    parts = {"x": np.ones((6, 1)), "z": np.ones((6, 1)), "y": np.arange(6.0)}
    with pytest.raises(DataError, match="do not fit together|starts must run from 0"):
        fit_mixed_model(**{**parts, "starts": np.array([0, 3, 6]), **wrong})


def test_one_row_more_than_fixed_effects_is_enough():
    x, y = np.column_stack([np.ones(3), [0.0, 1.0, 2.0]]), np.array([1.0, 2.0, 2.0])
    model = fit_mixed_model(x, x[:, :1], y, [0, 3])
    np.testing.assert_allclose(model.beta, np.linalg.lstsq(x, y)[0], atol=1e-6)
    assert np.isfinite(fit_mixed_model(x[:2], x[:2, :1], y[:2], [0, 2], reml=False).noise_var)


@pytest.mark.parametrize(("share", "is_kept"), [(0.03, True), (0.01, False)])
def test_a_column_is_kept_if_others_leave_2_percent_of_its_variance(share, is_kept):
    rng = np.random.default_rng(0)
    one, first, new = np.ones(1000), *np.linalg.qr(rng.normal(size=(1000, 2)))[0].T
    first, new = first - first.mean(), new - new.mean()
    new -= first * (first @ new) / (first @ first)
    mixed = np.sqrt(1 - share) * first / first.std() + np.sqrt(share) * new / new.std()
    kept = not_collinear(np.column_stack([one, first, 5.0 * mixed, one]))
    assert kept.tolist() == [True, True, is_kept, False]
    assert not_collinear(np.zeros((4, 1))).tolist() == [True]


def test_columns_equal_in_single_precision_count_as_one():
    x, z, y, starts, _ = ragged()
    wide = np.column_stack([x, x[:, 2].astype(np.float32)])
    plain, redundant = fit_mixed_model(x, z, y, starts), fit_mixed_model(wide, z, y, starts)
    np.testing.assert_allclose(np.abs(redundant.beta).max(), np.abs(plain.beta).max(), rtol=0.01)
    distinct = np.column_stack([x, x[:, 2] + 1e-4 * x[:, 3] ** 2])
    assert np.abs(fit_mixed_model(distinct, z, y, starts).beta).max() > 100


def test_estimates_cannot_be_changed_and_compare_by_identity():
    settings = mixed_model.MixedModel.__dataclass_params__
    assert (settings.frozen, settings.eq) == (True, False)
