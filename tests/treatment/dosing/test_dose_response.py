"""Dose-response models find what drives doses and outcomes, and refuse what they cannot fit."""

import warnings

import numpy as np
import pandas as pd
import pytest

from ehrmeta.data import make_nof1, make_pk
from ehrmeta.errors import DataError, DataWarning
from ehrmeta.treatment import DoseResponse
from tests.treatment.dosing.patients import adapted, fitted, lines


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
        new_patients = model.adapt(
            p.X[~train, 3:], p.y[~train], **{name: part[~train] for name, part in rows.items()}
        )
    at = {"groups": p.groups[first], "time": p.time[first], "T0": 0, "T1": 1}
    truth = p.effect[60:]
    low, high = new_patients.effect_interval(p.X[first, 3:], **at, confidence_level=0.9).T
    assert 0.84 < np.mean((low < truth) & (truth < high)) < 0.96
    assert abs(np.mean(new_patients.effect(p.X[first, 3:], **at) - truth)) < 0.4
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
    recommended = true[i, np.searchsorted(grid, best["dose"])].mean()
    population = true[i, blind.argmax(1)].mean()
    assert recommended - population > 0.8 * (true.max(1).mean() - population)
    assert recommended - 0.15 < best["probability"].mean() < recommended + 0.05


def test_the_order_of_rows_and_the_names_of_patients_do_not_matter() -> None:
    X, y, dose, patient, day = lines()
    mixed = np.random.default_rng(4).permutation(len(y))
    names = np.array([f"p{i:03d}" for i in patient])
    other = DoseResponse(trend=False).fit(
        X[mixed], y[mixed], treatment=dose[mixed], groups=names[mixed], time=day[mixed]
    )
    np.testing.assert_allclose(other.model_.mean, fitted().model_.mean, rtol=1e-5)


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


def test_levels_of_few_patients_are_distinguished_and_unknown_ones_warned_of_once() -> None:
    rng = np.random.default_rng(0)
    patient, day = np.repeat(np.arange(24), 8), np.tile(np.arange(8.0), 24)
    dose, arm = rng.integers(1, 5, 192).astype(float), np.array(list("abc"))[patient % 3]
    y = 2 * dose + 10.0 * (patient % 3) + rng.normal(0, 1, 24)[patient] + rng.normal(0, 0.5, 192)
    rows = {"treatment": dose, "groups": patient, "time": day}
    model = DoseResponse(trend=False, carry_over=0.0, ornstein_uhlenbeck=False)
    model.fit(pd.DataFrame({"arm": arm}), y, **rows)
    arms = pd.DataFrame({"arm": list("abc")})
    curves = model.unadapted().dose_response(arms, grid=[2.0])
    np.testing.assert_allclose(curves["response"], [4, 14, 24], atol=3)
    with pytest.warns(DataWarning) as caught:
        model.adapt(
            pd.DataFrame({"arm": ["d", "d"]}), [4.0, 6.0], treatment=[1.0, 2.0], time=[0, 1]
        )
    assert sum("'arm': 2 with an unknown level" in str(one.message) for one in caught) == 1


def test_more_rows_bring_the_slope_to_the_patients_own_and_narrow_the_band() -> None:
    rng = np.random.default_rng(2)
    dose = np.tile([1.0, 2.0, 3.0, 4.0], 10)
    y = 5 + 3.5 * dose + rng.normal(0, 0.5, 40)
    errors_and_widths = []
    for k in (2, 8, 40):
        one = fitted().adapt(np.zeros((k, 1)), y[:k], treatment=dose[:k], time=np.arange(k))
        low, high = one.effect_interval([[0.0]], T0=1, T1=2)[0]
        errors_and_widths.append((abs(one.effect([[0.0]], T0=1, T1=2)[0] - 3.5), high - low))
    errors, widths = np.transpose(errors_and_widths)
    assert errors[-1] < 0.2 < errors[0]
    assert (np.diff(widths) < 0).all()


def test_one_dose_only_is_flagged() -> None:
    with pytest.warns(DataWarning, match="1 of 1 patients .* one dose only"):
        one = fitted().adapt([[0.0]] * 2, [12.0, 13.0], treatment=[2, 2], time=[0, 1])
    assert one.one_dose_.tolist() == [True]
    assert adapted().one_dose_.tolist() == [False]


def test_effects_of_a_line_are_proportional_to_the_step_and_change_sign_with_it() -> None:
    one = adapted()
    step = one.effect([[0.0]], T0=1, T1=2)
    np.testing.assert_allclose(one.effect([[0.0]], T0=1, T1=4), 3 * step)
    np.testing.assert_allclose(one.effect([[0.0]], T0=2, T1=1), -step)
    low, high = one.effect_interval([[0.0]], T0=1, T1=2)[0]
    assert 0.5 * (low + high) == pytest.approx(step[0])


def test_a_frame_holds_the_response_to_one_dose_per_row() -> None:
    one, dose = adapted(), np.array([3.0, 1.0])
    frame = one.predict_frame([[0.0]] * 2, treatment=dose, confidence_level=0.8)
    assert list(frame) == ["dose", "response", "lower", "upper"]
    for row in range(2):
        curve = one.dose_response([[0.0]], dose[[row]], confidence_level=0.8)
        expected = curve[["dose", "response", "low", "high"]].to_numpy()
        np.testing.assert_allclose(frame.iloc[[row]].to_numpy(), expected)
