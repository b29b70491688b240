"""Laws of the mixed model with a process: the marginal likelihood, and recovery of its truth."""

import numpy as np
import pytest
import torch

from ehrmeta.nn import mixed_process
from ehrmeta.nn.mixed_model import fit_mixed_model
from ehrmeta.nn.mixed_process import (
    MixedProcess,
    condition,
    condition_effects,
    fit_mixed_process,
    held_out_errors,
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


def test_errors_of_held_out_tasks_are_those_of_the_conditional_mean():
    rng = np.random.default_rng(0)
    s, starts = np.array([0.0, 1.0, 3.0, 0.0, 2.0]), np.array([0, 3, 5])
    x, y = np.ones((5, 1)), rng.normal(size=5)
    model = MixedProcess(np.array([0.3]), np.array([[0.7]]), 0.5, 2.0, 0.2, 0.0)
    errors = held_out_errors(model, x, x, s, y, starts, shots=(0, 2, 3))
    prior = 0.7 + 0.5 * np.exp(-np.abs(s[:3, None] - s[:3]) / 2.0)
    weights = prior[2, :2] @ np.linalg.inv(prior[:2, :2] + 0.2 * np.eye(2))
    after_two = (y[2] - 0.3 - weights @ (y[:2] - 0.3)) ** 2
    expected = [[((y[3:] - 0.3) ** 2).mean(), np.nan, np.nan]]  # the smaller task is first
    expected += [[((y[:3] - 0.3) ** 2).mean(), after_two, np.nan]]
    np.testing.assert_allclose(errors, expected, rtol=1e-6)


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


def searched(monkeypatch, module, fit):
    """The objective, start and bounds that a fit passes to the search, and its result."""
    given = {}
    search = module.lbfgs

    def spy(objective, start, **options):
        given.update(objective=objective, start=start, bounds=options["bounds"])
        return search(objective, start, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, "lbfgs", spy)
        return given, fit()


def assert_gradient(objective, at, rtol=1e-5):
    """The objective's gradient is that of central differences."""
    steps = 1e-5 * np.eye(len(at))
    expected = [(objective(at + step)[0] - objective(at - step)[0]) / 2e-5 for step in steps]
    np.testing.assert_allclose(objective(at)[1], expected, rtol=rtol, atol=rtol)


def test_the_gradient_is_that_of_the_deviance_and_the_start_is_the_mixed_model(monkeypatch):
    x, s, y, starts = simulate(n_tasks=60)
    z = np.column_stack([np.ones(len(y)), s])
    factor = np.where(np.arange(len(y)) % 7 == 0, 4.0, 1.0)
    plain = fit_mixed_model(x, z, y, starts)
    search, _ = searched(
        monkeypatch,
        mixed_process,
        lambda: fit_mixed_process(x, z, s, y, starts, plain, noise_factor=factor),
    )
    start = search["start"]
    root = np.array([[start[0], 0.0], start[1:3]])
    np.testing.assert_allclose(root @ root.T, plain.G, atol=1e-4)
    np.testing.assert_allclose(np.exp(2 * start[[3, 5]]), plain.noise_var / 2)  # half of it each
    assert start[4] == 0.0  # tau is 1
    np.testing.assert_allclose(search["bounds"][3:], start[3:, None] + [[-6, 6], [-6, 4], [-6, 6]])
    for seed in range(3):
        at = start + np.random.default_rng(seed).normal(0, 0.2, len(start))
        assert_gradient(search["objective"], at)


def test_only_the_first_64_rows_of_a_task_count():
    rng = np.random.default_rng(0)
    s, starts, one = np.tile(np.arange(70.0), 8), np.arange(0, 561, 70), np.ones((560, 1))
    y = rng.normal(size=560) + np.repeat(rng.normal(size=8), 70)
    plain = fit_mixed_model(one, one, y, starts)
    used = s < 64
    begins = np.arange(0, 8 * 64 + 1, 64)
    first = fit_mixed_process(one[used], one[used], s[used], y[used], begins, plain)
    every = fit_mixed_process(one, one, s, y, starts, plain)
    np.testing.assert_allclose(every.noise_var, first.noise_var, rtol=1e-6)
    np.testing.assert_allclose(
        held_out_log_likelihood(first, one, one, s, y, starts),
        held_out_log_likelihood(first, one[used], one[used], s[used], y[used], begins),
    )


def test_of_many_tasks_a_sample_gives_the_variances_and_all_give_beta(monkeypatch):
    x, s, y, starts = simulate(n_tasks=600)
    one = np.ones((len(y), 1))
    plain = fit_mixed_model(x, one, y, starts)
    every = fit_mixed_process(x, one, s, y, starts, plain)
    monkeypatch.setattr(mixed_process, "_MOST_TASKS", 300)
    sampled = fit_mixed_process(x, one, s, y, starts, plain)
    assert sampled.noise_var != every.noise_var
    np.testing.assert_allclose(sampled.noise_var, every.noise_var, rtol=0.2)
    first = starts[:301]
    rows = slice(0, first[-1])
    half = fit_mixed_process(x[rows], one[rows], s[rows], y[rows], first, plain)
    of_half, of_all = abs(half.beta - every.beta), abs(sampled.beta - every.beta)
    assert of_all.max() < 0.5 * of_half.max()


def test_a_mixed_model_is_a_process_of_variance_0():
    x, s, y, starts = simulate(n_tasks=50, process_var=0.0)
    one = np.ones((len(y), 1))
    plain = fit_mixed_model(x, one, y, starts)
    model = MixedProcess.without(plain)
    assert (model.process_var, model.noise_var) == (0.0, plain.noise_var)
    assert model.log_likelihood == plain.log_likelihood
    expected = dense(model, x, one, s, y, starts, restricted=False)
    assert held_out_log_likelihood(model, x, one, s, y, starts) == pytest.approx(expected)


def test_the_noise_is_never_below_1e_8_of_the_other_variances():
    starts, one = np.arange(0, 41, 4), np.ones((40, 1))
    y = np.repeat(np.random.default_rng(0).normal(size=10), 4)
    plain = fit_mixed_model(one, one, y, starts)
    assert MixedProcess.without(plain).noise_var == pytest.approx(1e-8 * plain.G[0, 0])
    model = fit_mixed_process(one, one, np.tile(np.arange(4.0), 10), y, starts, plain)
    assert model.noise_var >= 1e-8 * (model.G[0, 0] + model.process_var)


@pytest.mark.parametrize("noise", [NOISE, 0.0 * NOISE], ids=["noise", "no noise"])
def test_both_forms_give_the_distance_and_a_floor_to_the_noise(noise) -> None:
    mask = torch.tensor([True, True, False, True, False, True])
    kernel = (EFFECTS @ EFFECTS.mT)[mask][:, mask]
    floored = noise[mask].clamp(min=1e-6 * float(kernel.diagonal().mean()))
    residual = RESIDUAL[mask]
    distance = residual @ torch.linalg.solve(kernel + torch.diag(floored), residual)
    states = condition(EFFECTS @ EFFECTS.mT, RESIDUAL, noise, mask)
    torch.testing.assert_close(states["distance"], distance, rtol=1e-4, atol=0.0)
    states = condition_effects(EFFECTS, RESIDUAL, noise, mask)
    torch.testing.assert_close(states["distance"], distance, rtol=1e-4, atol=0.0)


def test_the_floor_of_a_single_row_is_relative_to_its_own_variance() -> None:
    """Without noise, the variance that is left is the floor, a millionth of the prior."""
    row = torch.tensor([True] + [False] * 5)
    for state, cross in (
        (condition(EFFECTS @ EFFECTS.mT, RESIDUAL, 0.0 * NOISE, row), EFFECTS @ EFFECTS.mT),
        (condition_effects(EFFECTS, RESIDUAL, 0.0 * NOISE, row), None),
    ):
        prior = float(EFFECTS[0].square().sum())
        if cross is None:
            _, left = posterior_effects(state, EFFECTS[:1])
        else:
            _, left = posterior(state, cross[:1], torch.tensor([prior], dtype=torch.float64))
        assert float(left) / prior == pytest.approx(1e-6, rel=0.01)


def test_a_posterior_variance_is_never_negative() -> None:
    state = condition(torch.ones(2, 2).double(), torch.ones(2).double(), torch.zeros(2), ALL[:2])
    _, variance = posterior(state, torch.ones(1, 2).double(), torch.tensor([0.5]).double())
    assert variance.tolist() == [0.0]


def test_estimates_cannot_be_changed_and_compare_by_identity() -> None:
    for kind in (MixedProcess, mixed_process._Bucket, mixed_process._Whitened):
        settings = kind.__dataclass_params__
        assert (settings.frozen, settings.eq) == (True, False)
