import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from ehrmeta.data import NofOnePatients, make_nof1, make_pk
from ehrmeta.errors import (
    DataError,
    DataWarning,
    GroupError,
    NotFittedError,
    RenamedWarning,
    SchemaError,
)
from ehrmeta.treatment import AdaptedDoses, DoseResponse
from ehrmeta.treatment.dosing.dose_model import dose_model_at, fit_dose_model
from ehrmeta.treatment.dosing.dose_uncertainty import PlausibleModel
from ehrmeta.treatment.dosing.exposure import exposure, usual_gap
from ehrmeta.treatment.dosing.response_curve import ResponseCurves
from ehrmeta.treatment.dosing.titration import titration_p_value

Array = np.ndarray
PATIENTS, ROWS = 60, 6


@cache
def lines() -> tuple[Array, Array, Array, Array, Array]:
    """Patients with a line in the dose of their own, slopes around 2."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(PATIENTS), ROWS)
    day = np.tile(np.arange(float(ROWS)), PATIENTS)
    dose = rng.integers(1, 5, len(patient)).astype(float)
    slope = rng.normal(2, 0.5, PATIENTS)
    y = rng.normal(10, 3, PATIENTS)[patient] + slope[patient] * dose
    return np.zeros((len(y), 1)), y + rng.normal(0, 0.5, len(y)), dose, patient, day


@cache
def fitted() -> DoseResponse:
    X, y, dose, patient, day = lines()
    return DoseResponse(trend=False).fit(X, y, treatment=dose, groups=patient, time=day)


def adapted() -> AdaptedDoses:
    return fitted().adapt([[0.0]] * 3, [12.0, 16.0, 14.0], treatment=[1, 3, 2], time=[0, 1, 2])


def test_without_rows_it_is_the_population_bit_for_bit() -> None:
    model = fitted()
    none = model.adapt(np.zeros((0, 1)), [], treatment=[], time=[])
    pd.testing.assert_frame_equal(
        none.dose_response([[0.0]], [1, 2]), model.unadapted().dose_response([[0.0]], [1, 2])
    )


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


def test_more_rows_bring_the_slope_to_the_patients_own_and_narrow_the_band() -> None:
    rng = np.random.default_rng(2)
    dose = np.tile([1.0, 2.0, 3.0, 4.0], 10)
    y = 5 + 3.5 * dose + rng.normal(0, 0.5, 40)
    found = []
    for k in (2, 8, 40):
        one = fitted().adapt(np.zeros((k, 1)), y[:k], treatment=dose[:k], time=np.arange(k))
        low, high = one.effect_interval([[0.0]], T0=1, T1=2)[0]
        found.append((abs(one.effect([[0.0]], T0=1, T1=2)[0] - 3.5), high - low))
    errors, widths = np.transpose(found)
    assert errors[-1] < 0.2 < errors[0]
    assert (np.diff(widths) < 0).all()


def test_bands_hold_the_response_and_widen_beyond_the_doses() -> None:
    with pytest.warns(DataWarning, match="2 of 4 doses lie outside the training doses"):
        found = adapted().dose_response([[0.0]], [0, 2, 4, 9])
    assert (found["low"] < found["response"]).all()
    assert (found["response"] < found["high"]).all()
    assert found["extrapolated"].tolist() == [True, False, False, True]
    width = found["high"] - found["low"]
    assert width.iloc[3] > 1.5 * width.iloc[1]


def test_the_recommended_dose_has_the_largest_chance_of_the_grid() -> None:
    one, grid = adapted(), np.linspace(1, 4, 13)
    chance = one.chance([[0.0]], grid, target=(15, 17))
    best = one.recommend([[0.0]], target=(15, 17), grid=grid)
    assert best["dose"][0] == grid[chance[0].argmax()]
    assert best["probability"][0] == chance.max()
    assert not best["extrapolated"][0]


def test_max_dose_is_kept() -> None:
    free = adapted().recommend([[0.0]], target=(17, 19), grid=[1, 2, 3, 4])
    kept = adapted().recommend([[0.0]], target=(17, 19), grid=[1, 2, 3, 4], max_dose=2.5)
    assert free["dose"][0] > 2.5 >= kept["dose"][0]
    assert kept["probability"][0] < free["probability"][0]


@pytest.mark.parametrize(("direction", "sign"), [("increasing", 1.0), ("decreasing", -1.0)])
def test_monotone_rules_out_the_curves_of_the_other_direction(direction, sign) -> None:
    rng = np.random.default_rng(3)
    root = rng.normal(size=(2, 2))
    mean, cov = np.array([[1.0, -0.3 * sign]]), (root @ root.T)[None]
    drawn = rng.multivariate_normal(mean[0], cov[0], 400_000)
    drawn = drawn[sign * drawn[:, 1] > 0]
    curves, phi = ResponseCurves.of(mean, cov, direction), np.array([-1.0, 0.5, 2.0])
    values = drawn[:, :1] + drawn[:, 1:] * phi
    inside = np.mean((values > 0) & (values < 2), axis=0)
    np.testing.assert_allclose(curves.chance(phi, 0, 2)[0], inside, atol=0.01)
    for level in (0.1, 0.5, 0.9):
        expected = np.quantile(values, level, axis=0)
        np.testing.assert_allclose(curves.quantile(phi, level)[0], expected, atol=0.06)
    assert (sign * curves.v > 0).all()


def test_exposure_is_the_recursion_and_forgets_nothing_over_a_long_half_life() -> None:
    p = make_nof1(4, 4, 5, carry_over=0.6, random_state=0)
    starts = np.arange(0, 81, 20)
    half_life = np.log(0.5) / np.log(0.6)
    found = exposure(p.treatment, p.time, starts, half_life, usual_gap(p.time, starts))
    np.testing.assert_allclose(found, p.exposure)
    np.testing.assert_array_equal(exposure(p.treatment, p.time, starts, 0.0, 1.0), p.treatment)


def nof1_fit(p: NofOnePatients, **parameters: object) -> DoseResponse:
    model = DoseResponse(**parameters)
    return model.fit(p.X[:, 3:], p.y, treatment=p.treatment, groups=p.groups, time=p.time)


def test_carry_over_is_estimated_and_absent_where_there_is_none() -> None:
    there = make_nof1(60, carry_over=0.7, random_state=1)
    assert 0.5 ** (1 / nof1_fit(there).carry_over_) == pytest.approx(0.7, abs=0.1)
    assert nof1_fit(make_nof1(60, carry_over=0.0, random_state=2)).carry_over_ < 0.4


def test_the_estimate_is_the_top_of_the_likelihood_that_says_how_sure_it_is() -> None:
    p = make_nof1(40, 4, random_state=4)
    model = nof1_fit(p, carry_over=1.0)
    rows = model._rows(model.reader_.read(p.X[:, 3:], p.y, p.groups, p.time), p.treatment, None)
    design, best = model._designs(rows, 1.0), model.model_
    own = {"G": best.G, "tau": best.tau}
    own |= {"process_var": best.process_var, "noise_var": best.noise_var}
    for name, value in own.items():
        for factor in (0.8, 1.25):
            other = dose_model_at(*design, **own | {name: value * factor})
            assert other.log_likelihood < best.log_likelihood


def test_bands_hold_what_few_patients_leave_open_of_the_variances() -> None:
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


def test_titration_is_noticed_and_random_order_is_not() -> None:
    titrated = make_nof1(60, titration=True, random_state=3)
    with pytest.warns(DataWarning, match="later doses follow earlier outcomes"):
        simple = nof1_fit(titrated, carry_over=0.0, ornstein_uhlenbeck=False)
    assert simple.titration_p_value_ < 1e-6
    pk = make_pk(100, random_state=0)
    p = [
        titration_p_value(pk.X[:, 2], np.log(pk.y), np.arange(0, 501, 5)),
        nof1_fit(make_nof1(60, random_state=4), carry_over=0.0).titration_p_value_,
    ]
    assert not np.any(np.array(p) < 0.001)


@pytest.mark.parametrize("titration", [False, True])
def test_intervals_of_effects_cover_the_truth_where_naive_slopes_are_off(titration: bool) -> None:
    p = make_nof1(200, titration=titration, carry_over=0.7, random_state=5)
    train, first = p.groups < 60, np.arange(60, 200) * 56
    rows = {"treatment": p.treatment, "groups": p.groups, "time": p.time}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        model = DoseResponse().fit(
            p.X[train, 3:], p.y[train], **{name: part[train] for name, part in rows.items()}
        )
        found = model.adapt(
            p.X[~train, 3:], p.y[~train], **{name: part[~train] for name, part in rows.items()}
        )
    at = {"groups": p.groups[first], "time": p.time[first], "T0": 0, "T1": 1}
    truth = p.effect[60:]
    low, high = found.effect_interval(p.X[first, 3:], **at, confidence_level=0.9).T
    assert 0.84 < np.mean((low < truth) & (truth < high)) < 0.96
    assert abs(np.mean(found.effect(p.X[first, 3:], **at) - truth)) < 0.4
    pooled = np.polyfit(p.treatment[~train], p.y[~train], 1)[0]
    assert abs(pooled - truth.mean()) > 1.0


def test_a_few_concentrations_close_most_of_the_gap_to_the_best_dose() -> None:
    p = make_pk(250, random_state=6)
    train, seen = p.groups < 100, np.tile(np.arange(5) < 2, 250)
    X = np.column_stack([np.log(p.X[:, :2]), p.X[:, 3]])
    rows = {"treatment": p.X[:, 2], "groups": p.groups, "time": p.time}
    model = DoseResponse(
        ["x2"],
        dose_scale="log",
        outcome_transform="log",
        random_slope=False,
        trend=False,
        own_carry_over=True,
    ).fit(X[train], p.y[train], **{name: part[train] for name, part in rows.items()})
    support = ~train & seen
    one = model.adapt(X[support], p.y[support], **{n: part[support] for n, part in rows.items()})
    query, grid = X[~train][::5].copy(), np.geomspace(120, 1180, 40)
    query[:, 2] = 12.0
    best = one.recommend(query, target=p.target, grid=grid, groups=np.arange(100, 250))
    true, blind = p.chance(seen, grid, 0)[100:], p.chance(~seen & seen, grid, 0)[100:]
    i = np.arange(150)
    found = true[i, np.searchsorted(grid, best["dose"])].mean()
    population = true[i, blind.argmax(1)].mean()
    assert found - population > 0.8 * (true.max(1).mean() - population)
    assert found - 0.15 < best["probability"].mean() < found + 0.05


def test_the_order_of_rows_and_the_names_of_patients_do_not_matter() -> None:
    X, y, dose, patient, day = lines()
    mixed = np.random.default_rng(4).permutation(len(y))
    names = np.array([f"p{i:03d}" for i in patient])
    other = DoseResponse(trend=False).fit(
        X[mixed], y[mixed], treatment=dose[mixed], groups=names[mixed], time=day[mixed]
    )
    np.testing.assert_allclose(other.model_.mean, fitted().model_.mean, rtol=1e-5)


def test_one_dose_only_is_flagged() -> None:
    with pytest.warns(DataWarning, match="1 of 1 patients .* one dose only"):
        one = fitted().adapt([[0.0]] * 2, [12.0, 13.0], treatment=[2, 2], time=[0, 1])
    assert one.one_dose_.tolist() == [True]
    assert adapted().one_dose_.tolist() == [False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dose_time": [0.0, 1.0, 5.0]}, "the dose was given after its response in 1 of 3"),
        ({"treatment": [1, 2]}, "dose has 2 rows, X has 3"),
        ({"treatment": [1, np.nan, 2]}, "dose is missing in 1 of 3"),
        ({"time": None}, "time is missing"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(change: dict, message: str) -> None:
    given = {"treatment": [1, 2, 3], "time": [0, 1, 2]} | change
    with pytest.raises(DataError, match=message):
        fitted().adapt([[0.0]] * 3, [12.0, 16.0, 14.0], **given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_dose": 0.5}, "max_dose=0.5 lies below all training doses"),
        ({"max_dose": 1.5, "grid": [2, 3]}, "lies below all doses of the grid"),
        ({"target": (3, 1)}, "target must be a range"),
        ({"grid": []}, "grid must hold doses"),
        ({"monotone": "up"}, "monotone must be"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(change: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        adapted().recommend([[0.0]], **({"target": (15, 17)} | change))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"dose_scale": "sqrt"}, "dose_scale must be"),
        ({"outcome_transform": "sqrt"}, "outcome_transform must be"),
        ({"carry_over": -1.0}, "carry_over must be"),
        ({"curves": ["hours"]}, "curve 'hours' is not in X"),
        ({"outcome_transform": "log"}, "the response is 0 or below in 1 of"),
        ({"dose_scale": "log"}, "the dose is 0 or below in 1 of"),
    ],
)
def test_models_that_cannot_be_fitted_are_refused(parameters: dict, message: str) -> None:
    X, y, dose, patient, day = lines()
    dose, y = (
        np.where(np.arange(len(y)) == 0, 0, dose),
        np.where(np.arange(len(y)) == 1, -1, abs(y)),
    )
    with pytest.raises(DataError, match=message):
        DoseResponse(**parameters).fit(X, y, treatment=dose, groups=patient, time=day)


def test_patients_must_be_known() -> None:
    X, y, dose, patient, day = lines()
    with pytest.raises(NotFittedError):
        clone(fitted()).adapt(X, y, treatment=dose, groups=patient, time=day)
    with pytest.raises(GroupError, match="groups is missing"):
        DoseResponse().fit(X, y, treatment=dose, time=day)
    two = fitted().adapt(X[:12], y[:12], treatment=dose[:12], groups=patient[:12], time=day[:12])
    with pytest.raises(GroupError, match="not adapted"):
        two.dose_response(X[:1], groups=[7])
    with pytest.raises(GroupError, match="2 named patients"):
        two.dose_response(X[:1])
    with pytest.raises(SchemaError, match="not those of fit"):
        two.dose_response(np.zeros((1, 2)), groups=[0])


def test_the_old_name_of_the_dose_works_and_warns():
    model = fitted()
    rows = {"X": [[0.0]] * 2, "y": [12.0, 16.0], "time": [0, 1]}
    with pytest.warns(RenamedWarning, match="pass treatment="):
        old = model.adapt(**rows, dose=[1, 3])
    new = model.adapt(**rows, treatment=[1, 3])
    np.testing.assert_array_equal(old.effect([[0.0]], T0=1, T1=2), new.effect([[0.0]], T0=1, T1=2))
    with pytest.raises(DataError, match="treatment is missing"):
        model.adapt(**rows)
