"""Laws of the mixed model with a process: the marginal likelihood, and recovery of its truth."""

import numpy as np
import pytest
import torch

from ehrmeta.nn.mixed_model import fit_mixed_model
from ehrmeta.nn.mixed_process import (
    condition,
    condition_effects,
    fit_mixed_process,
    held_out_log_likelihood,
    posterior,
    posterior_effects,
)

GENERATOR = torch.Generator().manual_seed(0)
EFFECTS = torch.randn(6, 3, generator=GENERATOR, dtype=torch.float64)
QUERY = torch.randn(4, 3, generator=GENERATOR, dtype=torch.float64)
RESIDUAL = torch.randn(6, generator=GENERATOR, dtype=torch.float64)
NOISE = torch.linspace(0.2, 1.2, 6, dtype=torch.float64)
ALL = torch.ones(6, dtype=torch.bool)
PRIOR = QUERY.square().sum(1)


def simulate(n_tasks=150, process_var=2.0, seed=0):
    """Rows ``y = 3 + x + b + u(s) + e`` at uneven times, 2 to 15 a task."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 16, n_tasks)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    y, s, x = [], [], []
    for size in sizes:
        time = np.sort(rng.uniform(0, 10, size))
        covariance = (
            1 + process_var * np.exp(-np.abs(time[:, None] - time) / 2) + 0.5 * np.eye(size)
        )
        feature = rng.normal(size=size)
        y.append(3 + feature + rng.multivariate_normal(np.zeros(size), covariance))
        s.append(time)
        x.append(np.column_stack([np.ones(size), feature]))
    return np.concatenate(x), np.concatenate(s), np.concatenate(y), starts


def dense(model, x, z, s, y, starts, restricted):
    """The log likelihood task by task, from its definition."""
    total, information = 0.0, 0.0
    for a, b in zip(starts[:-1], starts[1:], strict=True):
        memory = model.process_var * np.exp(-np.abs(s[a:b, None] - s[a:b]) / model.tau)
        v = z[a:b] @ model.G @ z[a:b].T + memory + model.noise_var * np.eye(b - a)
        residual = y[a:b] - x[a:b] @ model.beta
        total += np.linalg.slogdet(v)[1] + residual @ np.linalg.solve(v, residual)
        information = information + x[a:b].T @ np.linalg.solve(v, x[a:b])
    n = len(y) - x.shape[1] if restricted else len(y)
    total += np.linalg.slogdet(information)[1] if restricted else 0.0
    return -0.5 * (total + n * np.log(2 * np.pi))


def test_likelihood_is_the_marginal_one_and_a_maximum():
    x, s, y, starts = simulate()
    one = np.ones((len(y), 1))
    model = fit_mixed_process(x, one, s, y, starts, fit_mixed_model(x, one, y, starts))
    value = dense(model, x, one, s, y, starts, restricted=True)
    np.testing.assert_allclose(model.log_likelihood, value, rtol=1e-8)
    for name, factor in (("process_var", 1.2), ("tau", 0.7), ("noise_var", 1.1)):
        moved = type(model)(**{**vars(model), name: factor * getattr(model, name)})
        assert dense(moved, x, one, s, y, starts, restricted=True) < value
    np.testing.assert_allclose(
        held_out_log_likelihood(model, x, one, s, y, starts),
        dense(model, x, one, s, y, starts, restricted=False),
        rtol=1e-8,
    )


def test_recovers_what_made_the_data():
    x, s, y, starts = simulate(n_tasks=1500)
    one = np.ones((len(y), 1))
    model = fit_mixed_process(x, one, s, y, starts, fit_mixed_model(x, one, y, starts))
    np.testing.assert_allclose(model.beta, [3, 1], atol=0.1)
    np.testing.assert_allclose(model.G, [[1]], rtol=0.3)
    np.testing.assert_allclose(
        [model.process_var, model.tau, model.noise_var], [2, 2, 0.5], rtol=0.2
    )


def test_without_a_process_it_is_the_mixed_model():
    x, s, y, starts = simulate(n_tasks=400, process_var=0.0)
    z = np.column_stack([np.ones(len(y)), s])
    plain = fit_mixed_model(x, z, y, starts)
    model = fit_mixed_process(x, z, s, y, starts, plain)
    np.testing.assert_allclose(model.beta, plain.beta, atol=0.02)
    assert -0.01 < model.log_likelihood - plain.log_likelihood < 6  # two parameters of pure chance


@pytest.mark.parametrize("shift", [0.0, 1e5])
def test_the_origin_of_time_and_a_constant_column_do_not_matter(shift):
    x, s, y, starts = simulate()
    one = np.ones((len(y), 1))
    plain = fit_mixed_model(x, one, y, starts)
    model = fit_mixed_process(x, one, s, y, starts, plain)
    wide = np.column_stack([x, np.full(len(y), 7.0)])
    moved = fit_mixed_process(wide, one, s + shift, y, starts, plain)
    np.testing.assert_allclose(wide @ moved.beta, x @ model.beta, rtol=1e-3)
    np.testing.assert_allclose(moved.tau, model.tau, rtol=1e-2)


def test_noise_of_each_row_may_differ():
    x, s, y, starts = simulate(n_tasks=1500)
    rng = np.random.default_rng(1)
    gross = rng.random(len(y)) < 0.05
    y = y + np.where(gross, rng.normal(0, 30, len(y)), 0.0)
    one = np.ones((len(y), 1))
    plain = fit_mixed_model(x, one, y, starts)
    model = fit_mixed_process(
        x, one, s, y, starts, plain, noise_factor=np.where(gross, 1800.0, 1.0)
    )
    np.testing.assert_allclose([model.process_var, model.noise_var], [2, 0.5], rtol=0.25)


def test_posterior_is_that_of_the_joint_normal() -> None:
    state = condition(EFFECTS @ EFFECTS.mT, RESIDUAL, NOISE, ALL)
    mean, variance = posterior(state, QUERY @ EFFECTS.mT, PRIOR)
    inverse = torch.linalg.inv(EFFECTS @ EFFECTS.mT + torch.diag(NOISE))
    cross = QUERY @ EFFECTS.mT
    torch.testing.assert_close(mean, cross @ inverse @ RESIDUAL)
    torch.testing.assert_close(variance, PRIOR - ((cross @ inverse) * cross).sum(1))


def test_weight_space_equals_function_space_also_under_a_mask() -> None:
    mask = torch.tensor([True, True, False, True, False, True])
    by_kernel = condition(EFFECTS @ EFFECTS.mT, RESIDUAL, NOISE, mask)
    by_weights = condition_effects(EFFECTS, RESIDUAL, NOISE, mask)
    expected = posterior(by_kernel, QUERY @ EFFECTS.mT, PRIOR)
    torch.testing.assert_close(posterior_effects(by_weights, QUERY), expected)
    short = condition_effects(EFFECTS[mask], RESIDUAL[mask], NOISE[mask], ALL[mask])
    torch.testing.assert_close(posterior_effects(short, QUERY), expected)


def test_without_a_row_the_posterior_is_the_prior() -> None:
    none = torch.zeros(6, dtype=torch.bool)
    mean, variance = posterior_effects(condition_effects(EFFECTS, RESIDUAL, NOISE, none), QUERY)
    torch.testing.assert_close(mean, torch.zeros_like(mean))
    torch.testing.assert_close(variance, PRIOR)
