"""The posterior of a patient, and mixtures of normals, by their formulas."""

import numpy as np

from ehrmeta.treatment.dosing.dose_model import fit_dose_model, mixed


def test_the_posterior_is_that_of_the_normal_equations() -> None:
    rng = np.random.default_rng(1)
    starts = np.arange(0, 201, 5)
    x = np.column_stack([np.ones(200), rng.normal(size=200)])
    y = x @ [1.0, 2.0] + np.repeat(rng.normal(size=(40, 2)), 5, axis=0)[:, 0] + rng.normal(size=200)
    model = fit_dose_model(x, x, np.tile(np.arange(5.0), 40), y, starts, process=False)
    w = np.column_stack([x, x])[:3]
    mean, cov = model.posterior(w, np.arange(3.0), y[:3])
    ridge = 1e-9 * np.eye(4)
    weight = np.linalg.inv(model.prior + ridge)
    expected = np.linalg.inv(weight + w.T @ w / model.noise_var)
    np.testing.assert_allclose(cov, expected, atol=1e-6)
    told = weight @ model.mean + w.T @ y[:3] / model.noise_var
    np.testing.assert_allclose(mean, expected @ told, atol=1e-5)


def test_a_mixture_has_the_mean_and_variance_of_its_parts() -> None:
    parts = [(np.array([0.0]), np.array([[1.0]])), (np.array([4.0]), np.array([[3.0]]))]
    mean, cov = mixed(parts, [0.25, 0.75])
    np.testing.assert_allclose(mean, [3.0])
    np.testing.assert_allclose(cov, [[0.25 * (1 + 9) + 0.75 * (3 + 1)]])
