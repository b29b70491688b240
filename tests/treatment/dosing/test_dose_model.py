"""The posterior of a patient, and mixtures of normals, by their formulas."""

import numpy as np
import pytest

from ehrmeta.data import make_nof1
from ehrmeta.treatment import DoseResponse
from ehrmeta.treatment.dosing.dose_model import (
    PlausibleModel,
    dose_model_at,
    estimate_half_life,
    exposure,
    fit_dose_model,
    mix_normals,
    usual_gap,
)
from tests.treatment.dosing.patients import ROWS, lines, nof1_fit


def test_the_posterior_is_that_of_the_normal_equations() -> None:
    rng = np.random.default_rng(1)
    starts = np.arange(0, 201, 5)
    x = np.column_stack([np.ones(200), rng.normal(size=200)])
    y = x @ [1.0, 2.0] + np.repeat(rng.normal(size=(40, 2)), 5, axis=0)[:, 0] + rng.normal(size=200)
    model = fit_dose_model((x, x, np.tile(np.arange(5.0), 40), y, starts), process=False)
    w = np.column_stack([x, x])[:3]
    mean, cov = model.posterior(w, np.arange(3.0), y[:3])
    ridge = 1e-9 * np.eye(4)
    weight = np.linalg.inv(model.prior + ridge)
    expected = np.linalg.inv(weight + w.T @ w / model.noise_var)
    np.testing.assert_allclose(cov, expected, atol=1e-6)
    precision_mean = weight @ model.mean + w.T @ y[:3] / model.noise_var
    np.testing.assert_allclose(mean, expected @ precision_mean, atol=1e-5)


def test_a_mixture_has_the_mean_and_variance_of_its_parts() -> None:
    parts = [(np.array([0.0]), np.array([[1.0]])), (np.array([4.0]), np.array([[3.0]]))]
    mean, cov = mix_normals(parts, [0.25, 0.75])
    np.testing.assert_allclose(mean, [3.0])
    np.testing.assert_allclose(cov, [[0.25 * (1 + 9) + 0.75 * (3 + 1)]])


def test_the_estimate_maximises_the_likelihood() -> None:
    p = make_nof1(40, 4, random_state=4)
    model = nof1_fit(p, carry_over=1.0)
    rows = model._rows(model.reader_.read(p.X[:, 3:], p.y, p.groups, p.time), p.treatment, None)
    x = model.design_.encoded(rows.columns)
    design, best = model._designs(rows, x, 1.0), model.model_
    for name, value in best.variances.items():
        for factor in (0.8, 1.25):
            other = dose_model_at(design, **best.variances | {name: value * factor})
            assert other.log_likelihood < best.log_likelihood


def test_bands_include_the_uncertainty_of_variances_from_few_patients() -> None:
    widths = []
    for n_patients in (8, 60):
        X, y, dose, patient, day = (part[: n_patients * ROWS] for part in lines())
        model = DoseResponse(trend=False, carry_over=0.0, ornstein_uhlenbeck=False)
        model.fit(X, y, treatment=dose, groups=patient, time=day)
        assert sum(one.weight for one in model.plausible_) == pytest.approx(1.0)
        known = DoseResponse().set_params(**model.get_params())
        known.__dict__.update(vars(model))
        known.plausible_ = [PlausibleModel(model.model_, 0.0, 1.0)]
        spread = [
            np.ptp(m.unadapted().effect_interval([[0.0]], T0=1, T1=2)) for m in (model, known)
        ]
        widths.append(spread[0] / spread[1])
    assert widths[0] > widths[1] > 1.0


def test_exposure_is_the_recursion_and_forgets_nothing_over_a_long_half_life() -> None:
    p = make_nof1(4, 4, 5, carry_over=0.6, random_state=0)
    starts = np.arange(0, 81, 20)
    half_life = np.log(0.5) / np.log(0.6)
    exposed = exposure(p.treatment, p.time, starts, half_life, usual_gap(p.time, starts))
    np.testing.assert_allclose(exposed, p.exposure)
    np.testing.assert_array_equal(exposure(p.treatment, p.time, starts, 0.0, 1.0), p.treatment)


def test_exposure_is_the_integral_of_fading_doses() -> None:
    rng = np.random.default_rng(0)
    time, dose, half_life = np.cumsum(rng.uniform(0.5, 2, 6)), rng.uniform(0, 9, 6), 1.7
    rate, edges = np.log(2) / half_life, np.concatenate([[time[0] - 1.0], time])
    fine = np.linspace(edges[0], edges[-1], 400_001)
    middle = 0.5 * (fine[1:] + fine[:-1])
    given = dose[np.searchsorted(edges, middle) - 1]
    faded = given * rate * np.exp(-rate * (time[-1] - middle)) * np.diff(fine)
    by_rows = exposure(dose, time, np.array([0, 6]), half_life, 1.0)
    assert by_rows[-1] == pytest.approx(faded.sum(), rel=1e-4)


def test_a_dose_stopped_has_halved_after_one_half_life() -> None:
    held = np.r_[np.full(300, 8.0), 0.0]
    time = np.r_[np.arange(300.0), 299.0 + 2.5]
    assert exposure(held, time, np.array([0, 301]), 2.5, 1.0)[-1] == pytest.approx(4.0)


def test_carry_over_is_estimated_and_absent_where_there_is_none() -> None:
    there = make_nof1(60, carry_over=0.7, random_state=1)
    assert 0.5 ** (1 / nof1_fit(there).carry_over_) == pytest.approx(0.7, abs=0.1)
    assert nof1_fit(make_nof1(60, carry_over=0.0, random_state=2)).carry_over_ < 0.4


@pytest.mark.parametrize("true", [0.0, 3.0])
def test_a_half_life_without_features_is_recovered(true: float) -> None:
    rng = np.random.default_rng(0)
    starts, time = np.arange(0, 801, 20), np.tile(np.arange(20.0), 40)
    dose = rng.choice([0.0, 1.0], 800)
    level = np.repeat(rng.normal(size=40), 20)
    y = level + 2 * exposure(dose, time, starts, true, 1.0) + rng.normal(0, 0.1, 800)

    def designs(half_life: float) -> tuple[np.ndarray, ...]:
        phi = exposure(dose, time, starts, half_life, 1.0)
        return np.column_stack([np.ones(800), phi]), np.ones((800, 1)), time, y, starts

    assert estimate_half_life(designs, 1.0, process=False) == pytest.approx(true, rel=0.1)
