"""Limits of errors and maps of probabilities hold by their definitions."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from ehrmeta.errors import BundleError, DataError, DataWarning, SchemaError
from ehrmeta.estimators.conformal_limits import (
    ANY,
    BetaCalibration,
    Calibration,
    Limits,
    by_cell,
    finest,
    levels_of,
    tasks_needed,
)


def test_limits_cover_a_random_row_of_a_new_task_at_the_nominal_level():
    """Exact on exchangeable tasks of different sizes, whose errors are alike within the task."""
    rng = np.random.default_rng(0)
    level, n_tasks, held = 0.8, 29, []
    for _ in range(4000):
        sizes = rng.integers(1, 6, n_tasks + 1)
        codes = np.repeat(np.arange(n_tasks + 1), sizes)
        shift = rng.exponential(1.0, n_tasks + 1) * np.where(sizes > 2, 3.0, 1.0)
        error = shift[codes] + 0.3 * rng.exponential(1.0, len(codes))
        new = codes == n_tasks
        low, high = Limits.of(error[~new], codes[~new]).at(level)
        held.append(np.mean((low <= error[new]) & (error[new] <= high)))
    noise = 3.0 * np.std(held) / np.sqrt(len(held))
    assert level - noise < np.mean(held) < level + 2.0 / (n_tasks + 1) + noise


def test_patients_weigh_the_same_however_many_rows_they_have():
    error, tasks = np.arange(100.0), np.arange(100)
    once = Limits.of(error, tasks)
    times = np.where(tasks == 99, 500, 1)
    often = Limits.of(np.repeat(error, times), np.repeat(tasks, times))
    for level in (0.5, 0.9, 0.95):
        assert often.at(level) == once.at(level)


@pytest.mark.parametrize(("n_tasks", "n_rows"), [(19, 1), (40, 3), (200, 1), (1500, 4)])
def test_coarse_limits_contain_the_exact_ones_and_are_hardly_wider(n_tasks, n_rows):
    rng = np.random.default_rng(n_tasks)
    tasks = np.repeat(np.arange(n_tasks), n_rows)
    exact = Limits.of(rng.standard_t(5, len(tasks)), tasks)
    coarse = exact.coarse()
    for level in np.arange(0.1, 0.999, 0.0137):
        if tasks_needed(level) <= n_tasks:
            inner, outer = exact.at(level), coarse.at(level)
            assert outer[0] <= inner[0] <= inner[1] <= outer[1]
            assert coarse.lower(level) <= exact.lower(level)
            assert coarse.upper(level) >= exact.upper(level)
    low, high = exact.at(0.9)
    assert np.diff(coarse.at(0.9)) <= 1.07 * (high - low)
    assert not np.isin(coarse.error, exact.error).any()
    assert len(coarse.error) <= 48
    assert Limits.of(np.empty(0), np.empty(0, np.int64)).coarse().n_tasks == 0


def test_more_patients_than_needed_give_finite_limits_and_fewer_an_error():
    for level in (0.5, 0.8, 0.9, 0.95, 0.99):
        m = tasks_needed(level)
        errors = np.arange(float(m))
        assert Limits.of(errors, np.arange(m)).at(level) == (0.0, m - 1.0)
        with pytest.raises(DataError, match=f"needs {m} calibration tasks.*got {m - 1}"):
            Limits.of(errors[1:], np.arange(m - 1)).at(level)


@pytest.mark.parametrize("level", [0.5, 0.63, 0.8, 0.9])
@pytest.mark.parametrize("by_kind", [False, True])
def test_limits_are_those_of_crepes_where_every_patient_has_one_row(by_kind, level):
    """There its Mondrian conformal predictive system and this definition are the same."""
    crepes = pytest.importorskip("crepes")
    rng = np.random.default_rng(0)
    n, kinds = 60, np.arange(60) % 2
    sd = rng.uniform(1, 3, n)
    residual = sd * (rng.gamma(2.0, 1.0, n) - 1.0)
    system = crepes.ConformalPredictiveSystem()
    system.fit(residual, sd, bins=kinds if by_kind else None, seed=0)
    at, scale = np.array([50.0, 40.0]), np.array([1.0, 2.0])
    bins = np.arange(2) if by_kind else None
    expected = system.predict_int(at, scale, bins=bins, confidence=level)
    for row in range(2):
        rows = kinds == row if by_kind else np.ones(n, dtype=bool)
        limits = Limits.of((residual / sd)[rows], np.arange(rows.sum())).at(level)
        assert at[row] + scale[row] * np.array(limits) == pytest.approx(expected[row])


@pytest.mark.parametrize("seed", range(5))
def test_limits_are_quantiles_of_the_weighted_errors_and_one_task_beyond(seed):
    """The definition word by word, where patients have several rows; no library has this one."""
    rng = np.random.default_rng(seed)
    tasks = np.repeat(np.arange(40), rng.integers(1, 7, 40))
    error = rng.normal(size=len(tasks)) + rng.normal(size=40)[tasks]
    mass = np.array([1.0 / np.sum(tasks == task) for task in tasks])

    def quantile(error: np.ndarray, tail: float) -> float:
        held = [e for e in error if 1.0 + mass[error <= e].sum() > tail * 41.0 + 1e-9]
        return min(held)

    limits = Limits.of(error, tasks)
    for level in (0.5, 0.8, 0.9):
        tail = (1.0 - level) / 2.0
        assert limits.at(level) == (quantile(error, tail), -quantile(-error, tail))
        assert limits.lower(level) == quantile(error, 1.0 - level)


def test_a_lower_limit_excludes_the_nominal_share():
    """Exact on exchangeable tasks of different sizes, whose errors are alike within the task."""
    rng = np.random.default_rng(0)
    n_tasks, above = 24, []
    for _ in range(4000):
        codes = np.repeat(np.arange(n_tasks + 1), rng.integers(1, 5, n_tasks + 1))
        error = rng.exponential(1.0, n_tasks + 1)[codes] + 0.2 * rng.normal(size=len(codes))
        new = codes == n_tasks
        limit = Limits.of(error[~new], codes[~new]).lower(0.8)
        above.append(np.mean(error[new] >= limit))
    noise = 3.0 * np.std(above) / np.sqrt(len(above))
    assert 0.8 - noise < np.mean(above) < 0.8 + 1.0 / (n_tasks + 1) + noise


def test_calibration_finds_the_map_that_made_the_outcomes():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.02, 0.98, 40_000)
    truth = BetaCalibration(1.5, 0.5, -0.3)
    calibration = BetaCalibration.of(p, rng.random(40_000) < truth.at(p), np.ones(40_000))
    assert (calibration.a, calibration.b, calibration.c) == pytest.approx(
        (1.5, 0.5, -0.3), abs=0.15
    )
    same = BetaCalibration(1.0, 1.0, 0.0)
    np.testing.assert_allclose(same.at(p), p)


def test_useless_probabilities_become_the_share_of_events():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.1, 0.9, 2000)
    turned = BetaCalibration.of(p, rng.random(2000) < 1 - p, np.ones(2000))
    assert np.ptp(turned.at(p)) < 1e-12
    assert turned.at(p[:1])[0] == pytest.approx(0.5, abs=0.05)


KEPT = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.88, 0.9, 0.92, 0.94, 0.95)
KEPT += (0.96, 0.97, 0.98, 0.99, 0.995, 0.998)


def test_at_the_kept_levels_coarse_limits_are_at_most_a_step_wider():
    rng = np.random.default_rng(0)
    exact = Limits.of(rng.normal(size=3000), np.arange(3000))
    coarse = exact.coarse()
    low, high = exact.at(0.8)
    steps = np.unique(np.diff(np.unique(coarse.error)))
    step = 2.0 ** np.floor(np.log2((high - low) / 32))
    np.testing.assert_allclose(steps / step, np.round(steps / step))
    np.testing.assert_allclose(coarse.error / step, np.round(coarse.error / step))
    for level in KEPT:
        inner, outer = np.array(exact.at(level)), np.array(coarse.at(level))
        assert (np.abs(outer - inner) < step).all(), level
    between = (coarse.at(0.955), coarse.at(0.96))
    assert between[0] == between[1]  # the next higher level
    assert coarse.weight.sum() == pytest.approx(3000)
    assert len(coarse.error) == 48
    assert (np.diff(coarse.error) >= 0).all()


@pytest.mark.parametrize("n_tasks", [1, 2, 5, 9, 10, 11])
def test_coarse_limits_of_few_tasks_contain_the_exact_ones(n_tasks):
    exact = Limits.of(np.random.default_rng(n_tasks).normal(size=n_tasks), np.arange(n_tasks))
    coarse = exact.coarse()
    assert coarse.weight.sum() == pytest.approx(n_tasks)
    for level in (0.05, 0.1, 0.3, 0.5, 0.6, 0.8):
        if tasks_needed(level) <= n_tasks:
            inner, outer = exact.at(level), coarse.at(level)
            assert outer[0] <= inner[0] <= inner[1] <= outer[1]
            assert np.diff(outer) <= np.ptp(exact.error) * (1 + 1 / 8)


def test_a_step_is_the_largest_power_of_two_up_to_a_32nd_of_the_middle():
    for distance, step in ((32.0, 1.0), (31.9, 0.5)):
        errors = np.arange(-20.0, 21.0) * distance / 34.0
        exact = Limits.of(errors, np.arange(41))
        assert np.diff(exact.at(0.8)) == pytest.approx(distance)
        shifted = exact.coarse().error / step
        np.testing.assert_allclose(shifted, np.round(shifted))
        assert (np.round(shifted) % 2 == 1).any()


def test_equal_errors_are_their_own_coarse_limits():
    assert Limits.of(np.full(30, 0.3), np.arange(30)).coarse().at(0.9) == (0.3, 0.3)


def test_a_task_without_rows_has_no_weight():
    limits = Limits.of(np.array([2.0, 1.0, 3.0]), np.array([0, 3, 3]))
    assert limits.n_tasks == 2
    assert limits.error.tolist() == [1.0, 2.0, 3.0]
    assert limits.weight.tolist() == [0.5, 1.0, 0.5]


def test_weights_of_rows_count_like_copies_in_a_calibration():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.1, 0.9, 500)
    happened, weight = rng.random(500) < p, rng.integers(1, 4, 500)
    weighted = BetaCalibration.of(p, happened, weight.astype(float))
    copied = BetaCalibration.of(
        np.repeat(p, weight), np.repeat(happened, weight), np.ones(weight.sum())
    )
    np.testing.assert_allclose(weighted.at(p), copied.at(p), atol=1e-5)
    turned = rng.random(500) < 1 - p
    useless = BetaCalibration.of(p, turned, np.where(turned, 3.0, 1.0))
    assert useless.a == useless.b == 0.0
    share = 3 * turned.sum() / (3 * turned.sum() + (~turned).sum())
    assert useless.c == pytest.approx(np.log(share / (1 - share)))


def test_a_negative_coefficient_is_0_and_the_other_one_is_fitted_alone():
    rng = np.random.default_rng(1)
    p = rng.uniform(0.02, 0.98, 20_000)
    for truth in (BetaCalibration(1.0, -0.4, 0.2), BetaCalibration(-0.4, 1.0, 0.2)):
        fitted = BetaCalibration.of(p, rng.random(20_000) < truth.at(p), np.ones(20_000))
        negative, other = ("b", "a") if truth.b < 0 else ("a", "b")
        assert getattr(fitted, negative) == 0.0
        assert 0.5 < getattr(fitted, other) < 1.0


def test_probabilities_of_0_and_1_are_clipped_at_one_in_a_million():
    same = BetaCalibration(1.0, 1.0, 0.0)
    np.testing.assert_allclose(same.at(np.array([0.0, 1.0])), [1e-6, 1 - 1e-6], rtol=1e-9)


def _limits(n_tasks, scale=1.0):
    return Limits.of(scale * np.linspace(-1.0, 1.0, n_tasks), np.arange(n_tasks))


LIMITS = {ANY: (_limits(60),), (1, None): (_limits(40, 2.0),), (1, "a"): (_limits(19, 3.0),)}
CALIBRATION = Calibration(LIMITS, {}, {})


def test_the_finest_group_of_enough_tasks_is_taken():
    limits = {cell: each[0] for cell, each in LIMITS.items()}
    assert finest(limits, (1, "a"), 19) == (1, "a")
    assert finest(limits, (1, "a"), 20) == (1, None)
    assert finest(limits, (1, "b"), 40) == (1, None)
    assert finest(limits, (1, "b"), 41) == finest(limits, (2, "a"), 1) == ANY


def test_rows_without_limits_of_their_own_get_those_of_a_larger_group_and_are_counted():
    chosen = CALIBRATION.chosen([(1, "a"), (1, "a")], 0.9)
    assert chosen == {(1, "a"): LIMITS[1, "a"]}
    cells = [(1, "b"), (2, "a"), (2, "a"), (1, "a")]
    message = r"3 rows in 2 subgroups \(first: after 1 shot\) had too few.* 90 % needs 19, got 0\. "
    with pytest.warns(DataWarning, match=message):
        chosen = CALIBRATION.chosen(cells, 0.9)
    assert chosen == {(1, "b"): LIMITS[1, None], (2, "a"): LIMITS[ANY], (1, "a"): LIMITS[1, "a"]}
    named = Calibration(LIMITS, {"age": (), "sex": ()}, {})
    message = r"1 row in 1 subgroup \(first: after 1 shot, by age, sex\).* 95 % needs 39, got 19"
    with pytest.warns(DataWarning, match=message):
        named.chosen([(1, "a")], 0.95)
    with pytest.warns(DataWarning, match="after 0 shots"):
        CALIBRATION.chosen([(0, None)], 0.9)
    assert CALIBRATION.chosen([(1, "a")], 0.95 - 1e-3, sides=1) == {(1, "a"): LIMITS[1, "a"]}
    with pytest.raises(DataError, match="needs 199 calibration tasks with rows to predict, got 60"):
        CALIBRATION.chosen([ANY], 0.99)


def test_cells_of_eleven_tasks_or_more_are_described():
    rows = pd.DataFrame(
        {
            "shots": np.repeat([1, 1, 3], [11, 10, 10]),
            "level": np.repeat(["a", "b", "a"], [11, 10, 10]),
            "task": np.concatenate([np.arange(11), np.arange(10), np.arange(10)]),
        }
    )
    counts = by_cell(rows, len)
    assert counts == {ANY: 31, (1, None): 21, (1, "a"): 11}
    assert set(by_cell(rows.iloc[:10], len)) == {ANY}


def test_probabilities_are_mapped_by_their_support_size_and_sum_to_1():
    double = BetaCalibration(2.0, 2.0, 0.0)
    same = BetaCalibration(1.0, 1.0, 0.0)
    calibration = Calibration(LIMITS, {}, {ANY: (same, same), (1, None): (double, double)})
    p = np.array([[0.3, 0.7], [0.3, 0.7]])
    found = calibration.recalibrated(p, [(1, "a"), (2, "a")])
    odds = (0.3 / 0.7) ** 2
    np.testing.assert_allclose(found, [[odds / (1 + odds), 1 / (1 + odds)], [0.3, 0.7]])
    assert p[0, 0] == 0.3  # unchanged
    three = Calibration(LIMITS, {}, {ANY: (double, same, same)})
    found = three.recalibrated(np.array([[0.5, 0.25, 0.25]]), [(0, None)])
    np.testing.assert_allclose(found.sum(1), 1.0)
    np.testing.assert_allclose(found, [[0.5, 0.25, 0.25]])


def _state(calibration=CALIBRATION):
    tensors, metadata = calibration.to_state()
    metadata = json.loads(json.dumps(metadata))
    return tensors, metadata | {"model": {"table": {"outcome": {}}}}


def test_a_calibration_comes_back_from_its_state():
    maps = {ANY: (BetaCalibration(1.0, 2.0, 3.0),)}
    calibration = Calibration(LIMITS, {"age": (40.0, 60.0)}, maps)
    tensors, metadata = _state(calibration)
    again = Calibration.from_state(tensors, metadata)
    assert (dict(again.by), dict(again.maps)) == ({"age": (40.0, 60.0)}, maps)
    assert again.limits.keys() == LIMITS.keys()
    for cell, (limits,) in again.limits.items():
        np.testing.assert_array_equal(limits.error, LIMITS[cell][0].error)
        np.testing.assert_array_equal(limits.weight, LIMITS[cell][0].weight)
        assert limits.n_tasks == LIMITS[cell][0].n_tasks


@pytest.mark.parametrize(("n_tasks", "is_marked"), [(0, False), (1, True), (10, True), (11, False)])
def test_limits_of_few_tasks_mark_a_file_as_patient_data(n_tasks, is_marked):
    limits = {ANY: (_limits(60),), (1, None): (_limits(n_tasks),)}
    _, metadata = Calibration(limits, {}, {}).to_state()
    assert ("contains_patient_data" in metadata) == is_marked


PAIR = torch.tensor([[1.0, 2.0], [0.5, 0.5]]).double()
BAD_LIMITS = {
    "single precision": (PAIR.float(), 1, "float64 pair"),
    "three rows": (torch.ones(3, 2).double(), 1, "float64 pair"),
    "one axis": (torch.ones(2).double(), 1, "float64 pair"),
    "not sorted": (PAIR.flip(1), 1, "sorted errors and positive"),
    "no weight": (PAIR * torch.tensor([[1.0], [0.0]]), 0, "sorted errors and positive"),
    "a float of tasks": (PAIR, 1.0, "sorted errors and positive"),
    "a truth value of tasks": (PAIR, True, "sorted errors and positive"),
    "another sum": (PAIR, 2, "must add up to its number of tasks"),
}


@pytest.mark.parametrize(("pair", "n_tasks", "message"), BAD_LIMITS.values(), ids=BAD_LIMITS)
def test_limits_that_no_calibration_has_are_refused(pair, n_tasks, message):
    tensors, metadata = _state(Calibration({ANY: (_limits(60),)}, {}, {}))
    metadata["cells"][0]["n_tasks"] = [n_tasks]
    with pytest.raises(BundleError, match=message):
        Calibration.from_state(tensors | {"limits.0.0": pair}, metadata)


def test_a_calibration_matches_its_outcome():
    tensors, metadata = _state()
    metadata["model"]["table"]["outcome"] = {"labels": ["a", "b"]}
    with pytest.raises(BundleError, match="does not match its outcome"):
        Calibration.from_state(tensors, metadata)
    tensors, metadata = _state()
    metadata["cells"][0]["cell"] = [2, None]
    with pytest.raises(BundleError, match="does not match its outcome"):
        Calibration.from_state(tensors, metadata)


def test_levels_are_named_by_column_and_missing_ones_too():
    columns = {
        "age": np.array([40.0, 45.0, 61.0, np.nan]),
        "ward": np.array(["a", "b", None, "a"], dtype=object),
        "stage": np.array([1.0, 2.5, np.nan, 1.0]),
    }
    levels = levels_of(columns, {"age": (45, 60), "ward": (), "stage": ()})
    assert levels.tolist() == [
        "age up to 45, ward a, stage 1",
        "age up to 45, ward b, stage 2.5",
        "age over 60, ward missing, stage missing",
        "age missing, ward a, stage 1",
    ]
    assert levels_of(columns, {}).tolist() == [""] * 4
    assert levels_of({"n": np.arange(3)}, {"n": (0.5, 1.5)}).tolist() == [
        "n up to 0.5",
        "n 0.5-1.5",
        "n over 1.5",
    ]


def test_columns_that_do_not_divide_into_few_levels_are_refused():
    assert len(set(levels_of({"x": np.arange(20)}, {"x": ()}))) == 20
    with pytest.raises(SchemaError, match="'x' in by= has 21 distinct values"):
        levels_of({"x": np.arange(21)}, {"x": ()})
    for values, cuts in (
        (np.array(["a"], object), (1,)),
        (np.ones(2), (2, 1)),
        (np.ones(2), (1, 1)),
    ):
        with pytest.raises(SchemaError, match="needs numbers and increasing cut points"):
            levels_of({"x": values}, {"x": cuts})
    with pytest.raises(SchemaError, match="column 'agee', which is not in X.*'age'"):
        levels_of({"age": np.ones(2)}, {"agee": ()})


def test_calibrations_cannot_be_changed():
    for kind in (Limits, BetaCalibration, Calibration):
        assert kind.__dataclass_params__.frozen


@pytest.mark.parametrize("level", [0.5, 0.63, 0.8, 0.95])
def test_an_upper_limit_is_the_lower_one_of_the_negative_errors(level):
    rng = np.random.default_rng(0)
    tasks = np.repeat(np.arange(40), rng.integers(1, 7, 40))
    error = rng.exponential(size=len(tasks))
    limits, negative = Limits.of(error, tasks), Limits.of(-error, tasks)
    assert limits.upper(level) == -negative.lower(level)
    assert limits.upper(level) > limits.lower(level)
    few = Limits.of(error[:3], np.arange(3))
    for side in (few.lower, few.upper):
        with pytest.raises(DataError, match="needs 19 calibration tasks"):
            side(0.95)
        assert np.isfinite(side(0.75))
