"""Means of predictive distributions, back on the outcome's own scale."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats

from ehrmeta import ConformalClassifier, ConformalRegressor, MetaClassifier
from ehrmeta.baselines import LastValue
from ehrmeta.data import OutcomeScale
from ehrmeta.errors import DataError
from ehrmeta.estimators.predictions import (
    CarriedPredictive,
    ClassPredictive,
    Predictive,
    join_rows,
    refuse_overflow,
)
from tests.estimators.patients import make_patients

LOGS = OutcomeScale(center=0.5, scale=1.2, transform="log")


def log_normal(loc: float, scale: float) -> Predictive:
    return Predictive(np.array([loc]), LOGS, np.array([scale]))


def test_a_sharp_prediction_of_logs_has_the_mean_of_the_log_normal() -> None:
    found = log_normal(0.3, 0.2).mean()
    assert found == pytest.approx(np.exp(0.5 + 1.2 * 0.3 + 0.5 * (1.2 * 0.2) ** 2), rel=1e-9)


def test_a_vague_prediction_of_logs_has_the_mean_of_what_lies_below_the_limit() -> None:
    draws = np.random.default_rng(0).normal(1.0, 1.5, 2_000_000)
    expected = np.exp(0.5 + 1.2 * draws[draws < 3.0]).mean()
    assert log_normal(1.0, 1.5).mean() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("scale", [1.0, 10.0, 1e3])
def test_no_mean_of_logs_rests_on_a_tail_that_was_never_seen(scale: float) -> None:
    assert log_normal(0.0, scale).mean() < np.exp(0.5 + 1.2 * 3.0)
    assert log_normal(4.0, scale).mean() < np.exp(0.5 + 1.2 * 5.0)


def test_the_mean_of_logs_grows_with_the_median() -> None:
    loc = np.linspace(-5.0, 8.0, 200)
    assert (np.diff(Predictive(loc, LOGS, np.full(200, 0.8)).mean()) > 0.0).all()


DATES = pd.Timestamp("2020-01-01")


@pytest.fixture(scope="module")
def adapted(model, halves):
    support, _ = halves
    return model.adapt(support.X, support.y, groups=support.groups, time=support.time)


@pytest.fixture(scope="module")
def classes(patients):
    return {
        n: MetaClassifier(max_steps=2, random_state=0, verbose=False).fit(
            patients.X, _labels(patients.y, n), groups=patients.groups, time=patients.time
        )
        for n in (2, 3)
    }


def _labels(y, n_classes):
    return np.array(["high", "low", "middle"][:n_classes])[(y * 10).astype(int) % n_classes]


def test_numbers_have_mean_and_limits_and_keep_the_index(adapted, halves):
    _, query = halves
    rows = {"groups": query.groups, "time": query.time}
    frame = adapted.predict_frame(query.X, **rows, confidence_level=0.8)
    assert list(frame) == ["task", "time", "mean", "lower", "upper"]
    assert frame.index.equals(query.X.index)
    np.testing.assert_array_equal(frame["mean"], adapted.predict(query.X, **rows))
    interval = adapted.predict_interval(query.X, **rows, confidence_level=0.8)
    np.testing.assert_array_equal(frame[["lower", "upper"]], interval)
    np.testing.assert_array_equal(frame["task"], query.groups)
    np.testing.assert_array_equal(frame["time"], query.time)


def test_new_tasks_are_predicted_as_in_predict(adapted, halves):
    _, query = halves
    rows = {"groups": np.where(query.groups < 1010, query.groups, 7), "time": query.time}
    frame = adapted.predict_frame(query.X, **rows, new_groups="population")
    expected = adapted.predict(query.X, **rows, new_groups="population")
    np.testing.assert_array_equal(frame["mean"], expected)
    missing = adapted.predict_frame(query.X, **rows, new_groups="nan")
    np.testing.assert_array_equal(missing["upper"].isna(), query.groups >= 1010)


def test_polars_holds_the_same(adapted, halves):
    _, query = halves
    rows = {"groups": query.groups, "time": query.time}
    frame = adapted.predict_frame(query.X, **rows, as_="polars")
    assert isinstance(frame, pl.DataFrame)
    expected = adapted.predict_frame(query.X, **rows).reset_index(drop=True)
    pd.testing.assert_frame_equal(frame.to_pandas(), expected)


def test_one_task_without_id_and_time_has_predictions_only(halves):
    X, y, groups, _ = make_patients(n_patients=20)
    one = LastValue().fit(X, y, groups=groups).adapt(X[:2], y[:2])
    frame = one.predict_frame(X[:3])
    assert list(frame) == ["mean", "lower", "upper"]
    assert frame["mean"].notna().all()
    assert frame["lower"].isna().all()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_classes_have_the_likeliest_and_risks(classes, halves, n_classes):
    support, query = halves
    given = {"groups": support.groups, "time": support.time}
    adapted = classes[n_classes].adapt(support.X, _labels(support.y, n_classes), **given)
    rows = {"groups": query.groups, "time": query.time}
    frame = adapted.predict_frame(query.X, **rows)
    p = adapted.predict_proba(query.X, **rows)
    if n_classes == 2:
        np.testing.assert_array_equal(frame["risk"], p[:, 1])
    else:
        np.testing.assert_array_equal(frame[["risk_high", "risk_low", "risk_middle"]], p)
        with pytest.raises(DataError, match="one of two classes"):
            adapted.predict_frame(query.X, **rows, names="meds")
    assert frame["class"].tolist() == adapted.predict(query.X, **rows).tolist()


def test_meds_evaluators_find_their_names(patients, halves):
    _, query = halves
    label = patients.y > 54
    model = MetaClassifier(max_steps=2, random_state=0, verbose=False)
    day = DATES + pd.to_timedelta(patients.time, unit="D")
    model.fit(patients.X, label, groups=patients.groups, time=day)
    adapted = model.adapt(query.X[:0], label[:0], time=day[:0])
    later = DATES + pd.to_timedelta(query.time, unit="D")
    rows = {"groups": query.groups, "time": later}
    frame = adapted.predict_frame(query.X, **rows, names="meds", as_="polars")
    assert frame.schema == {
        "subject_id": pl.Int64,
        "prediction_time": pl.Datetime("us"),
        "predicted_boolean_probability": pl.Float64,
    }
    np.testing.assert_array_equal(
        frame["predicted_boolean_probability"], adapted.predict_proba(query.X, time=later)[:, 1]
    )
    with pytest.raises(DataError, match="subject and a prediction time, but task"):
        adapted.predict_frame(query.X, time=later, names="meds")


def test_calibrated_tasks_have_their_intervals_and_sets(model, classes, patients, halves):
    support, query = halves
    given, rows = ({"groups": part.groups, "time": part.time} for part in (support, query))
    held_out = make_patients(n_patients=60, seed=3)
    other = {"groups": held_out.groups, "time": held_out.time}
    numbers = ConformalRegressor(model, shots=(3,)).calibrate(held_out.X, held_out.y, **other)
    adapted = numbers.adapt(support.X, support.y, **given)
    frame = adapted.predict_frame(query.X, **rows)
    interval = adapted.predict_interval(query.X, **rows)
    np.testing.assert_array_equal(frame[["lower", "upper"]], interval)
    sets = ConformalClassifier(classes[2], shots=(3,))
    sets.calibrate(held_out.X, _labels(held_out.y, 2), **other)
    adapted = sets.adapt(support.X, _labels(support.y, 2), **given)
    frame = adapted.predict_frame(query.X, **rows)
    assert list(frame)[2:] == ["class", "risk", "in_set_high", "in_set_low"]
    members = adapted.predict_set(query.X, **rows)
    np.testing.assert_array_equal(frame[["in_set_high", "in_set_low"]], members)


@pytest.mark.parametrize(
    ("argument", "value"), [("as_", "arrow"), ("names", "omop"), ("confidence_level", 90)]
)
def test_unknown_arguments_are_named(adapted, halves, argument, value):
    _, query = halves
    with pytest.raises(DataError, match=argument):
        adapted.predict_frame(query.X, groups=query.groups, time=query.time, **{argument: value})


@pytest.mark.parametrize("dof", [None, np.array([4.0, 4.0, 30.0])])
def test_probability_beyond_the_range_counts_at_its_ends(dof):
    outcome = OutcomeScale(20.0, 5.0, low=0.0, high=30.0)
    loc, scale = np.array([1.9, -4.5, 0.0]), np.array([0.5, 1.0, 2.0])
    predictive = Predictive(loc, outcome, scale, dof)
    levels = (np.arange(100_000) + 0.5) / 100_000
    e = stats.norm.ppf(levels) if dof is None else stats.t.ppf(levels[:, None], dof)
    draws = np.clip(20.0 + 5.0 * (loc + scale * e.reshape(len(levels), -1)), 0.0, 30.0)
    np.testing.assert_allclose(predictive.mean(), draws.mean(0), atol=2e-3)
    for level in (0.001, 0.5, 0.999):
        np.testing.assert_allclose(
            predictive.quantile(level), np.quantile(draws, level, axis=0), atol=0.05
        )
    below, up_to = predictive.cdf(np.array([30.0, 0.0, 10.0]))
    np.testing.assert_allclose(
        below, [(draws[:, 0] < 30).mean(), 0.0, (draws[:, 2] < 10).mean()], atol=1e-3
    )
    np.testing.assert_allclose(
        up_to, [1.0, (draws[:, 1] <= 0).mean(), (draws[:, 2] <= 10).mean()], atol=1e-3
    )


def test_an_outcome_without_a_range_is_written_as_before():
    assert "low" not in OutcomeScale(1.0, 2.0).to_dict()
    bounded = OutcomeScale(1.0, 2.0, low=0.0)
    assert OutcomeScale.from_dict(bounded.to_dict()) == bounded


@pytest.mark.parametrize("dof", [None, 5.0])
def test_the_mean_of_a_square_root_is_its_square_and_the_variance(dof):
    outcome = OutcomeScale(center=3.0, scale=0.5, transform="sqrt", low=0.0, high=12.0)
    given = None if dof is None else np.full(3, dof)
    predictive = Predictive(np.array([0.4, -1.0, 9.0]), outcome, np.array([0.8, 0.1, 0.1]), given)
    variance = np.square(0.5 * predictive.scale) * (1.0 if dof is None else dof / (dof - 2.0))
    expected = np.square(3.0 + 0.5 * predictive.loc) + variance
    np.testing.assert_allclose(predictive.mean(), np.minimum(expected, 12.0))


def test_without_a_mean_there_is_the_median():
    t = Predictive(np.array([0.3]), LOGS, np.array([0.2]), np.array([5.0]))
    assert t.mean() == pytest.approx(np.exp(0.5 + 1.2 * 0.3))
    point = Predictive(np.array([0.3]), OutcomeScale(1.0, 2.0))
    assert point.mean() == point.point() == pytest.approx(1.6)
    columns = point.columns(0.9)
    assert list(columns) == ["mean", "lower", "upper"]
    assert np.isnan([columns["lower"][0], columns["upper"][0]]).all()
    with pytest.raises(DataError, match="point predictions only"):
        point.quantile(0.5)
    with pytest.raises(DataError, match="no class probabilities"):
        point.probabilities()


def test_intervals_are_central_and_rows_are_taken_in_the_order_of_an_index():
    predictive = Predictive(np.array([0.0, 1.0]), OutcomeScale(5.0, 2.0), np.array([1.0, 2.0]))
    ends = stats.norm([5.0, 7.0], [2.0, 4.0]).ppf([[0.1], [0.9]]).T
    np.testing.assert_allclose(predictive.interval(0.8), ends)
    taken = predictive.take(np.array([1, 0, 1]))
    np.testing.assert_allclose(taken.interval(0.8), ends[[1, 0, 1]])
    t = Predictive(*vars(predictive).values())
    t = Predictive(t.loc, t.outcome, t.scale, np.array([3.0, 30.0])).take(np.array([1]))
    assert (t.scale.tolist(), t.dof.tolist()) == ([2.0], [30.0])
    np.testing.assert_allclose(t.quantile(0.9), 7.0 + 4.0 * stats.t(30.0).ppf(0.9))


def carried(unchanged=0.4, last=0.5):
    outcome = OutcomeScale(10.0, 2.0)
    return CarriedPredictive(
        np.array([0.0]),
        outcome,
        np.array([1.0]),
        unchanged=np.array([unchanged]),
        last=np.array([last]),
    )


def test_a_mixture_with_the_last_value_has_its_quantiles_and_distribution():
    rng = np.random.default_rng(0)
    stays = rng.random(400_000) < 0.4
    draws = np.where(stays, 11.0, rng.normal(10.0, 2.0, 400_000))
    assert carried().mean() == pytest.approx(0.4 * 11.0 + 0.6 * 10.0)
    for level in (0.05, 0.3, 0.45, 0.6, 0.8, 0.85, 0.95):
        expected = np.quantile(draws, level)
        assert carried().quantile(level)[0] == pytest.approx(expected, abs=0.03)
    for y in (8.0, 11.0, 13.0):
        below, at = carried().cdf(np.array([y]))
        assert below[0] == pytest.approx((draws < y).mean(), abs=0.005)
        assert at[0] == pytest.approx((draws <= y).mean(), abs=0.005)
    p = 0.6 * stats.norm.cdf(0.5)  # levels within the point mass, its ends included
    for level in (p, p + 0.4):
        assert carried().quantile(level)[0] == pytest.approx(11.0)
    assert carried(unchanged=1.0).quantile(0.01)[0] == pytest.approx(11.0)
    taken = carried().take(np.array([0, 0]))
    assert (taken.unchanged.tolist(), taken.last.tolist()) == ([0.4, 0.4], [0.5, 0.5])


def test_classes_have_probabilities_and_no_quantiles():
    logits = np.log([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]]) + [[5.0], [-3.0]]
    classes = ClassPredictive(logits, np.array(["a", "b", "c"]))
    np.testing.assert_allclose(classes.probabilities(), [[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]])
    assert classes.point().tolist() == ["b", "a"]
    assert classes.take(np.array([1])).point().tolist() == ["a"]
    assert list(classes.columns(0.9)) == ["class", "risk_a", "risk_b", "risk_c"]
    with pytest.raises(DataError, match="classes have no quantiles"):
        classes.quantile(0.5)


def test_rows_of_other_tasks_are_joined_or_missing():
    known = np.array([True, False, True])
    new = {"n": np.array([7]), "label": np.array(["x"], object), "p": np.ones((1, 2))}
    adapted = {"n": np.array([1, 3]), "label": np.array(["a", "b"], object), "p": np.zeros((2, 2))}
    joined = join_rows(known, adapted, new, is_missing=False)
    assert (joined["n"].tolist(), joined["label"].tolist()) == ([1, 7, 3], ["a", "x", "b"])
    assert joined["p"].tolist() == [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
    missing = join_rows(known, adapted, new, is_missing=True)
    np.testing.assert_array_equal(missing["n"], [1.0, np.nan, 3.0])
    assert pd.isna(missing["label"]).tolist() == [False, True, False]
    assert np.isnan(missing["p"][1]).all()
    alone = join_rows(np.array([False]), None, new, is_missing=False)
    assert alone["n"].tolist() == [7]


def test_predictions_that_overflow_are_counted_by_row():
    refuse_overflow({"mean": np.ones(2), "n": np.arange(2), "label": np.array(["a", "b"], object)})
    with pytest.raises(DataError, match="of 2 of 3 rows are not finite"):
        refuse_overflow({"p": np.array([[1.0, np.inf], [1.0, 1.0], [np.nan, np.nan]])})


@pytest.mark.parametrize("y", [29.999, 30.0, 30.001])
def test_ends_of_the_range_hold_the_probability_beyond_them(y):
    outcome = OutcomeScale(20.0, 5.0, low=0.0, high=30.0)
    predictive = Predictive(np.array([1.0]), outcome, np.array([1.0]))
    p = stats.norm(25.0, 5.0).cdf(y)
    below, at = (part[0] for part in predictive.cdf(np.array([y])))
    assert below == pytest.approx(p)
    assert at == pytest.approx(1.0 if y >= 30.0 else p)
    low = Predictive(np.array([-4.0]), outcome, np.array([1.0]))
    p = stats.norm(0.0, 5.0).cdf(y - 30.0)
    below, at = (part[0] for part in low.cdf(np.array([y - 30.0])))
    assert below == pytest.approx(0.0 if y <= 30.0 else p)
    assert at == pytest.approx(p)


def test_predictions_cannot_be_changed():
    for kind in (Predictive, ClassPredictive, CarriedPredictive):
        assert kind.__dataclass_params__.frozen
    own = [field.kw_only for field in fields(CarriedPredictive)][-2:]
    assert own == [True, True]
