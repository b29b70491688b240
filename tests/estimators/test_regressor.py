"""`MetaRegressor` keeps the laws of adaptation and scikit-learn's conventions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from ehrmeta import MAML, MLP, MetaRegressor
from ehrmeta.baselines import LastValue
from ehrmeta.data import Clock, Feature, Outcome, Schema
from ehrmeta.errors import DataError, GroupError
from tests.estimators.patients import small_model

pytestmark = pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")


def _adapt(model, rows):
    return model.adapt(rows.X, rows.y, groups=rows.groups, time=rows.time)


def _predict(adapted, rows):
    return adapted.predict(rows.X, groups=rows.groups, time=rows.time)


def test_population_is_adaptation_to_nothing_bit_for_bit(model, new_patients):
    X, y, _, time = new_patients
    empty = model.adapt(X[:0], y[:0], time=time[:0])
    assert np.array_equal(model.predict(X, time=time), empty.predict(X, time=time))


def test_adapting_beats_the_population_and_more_rows_help(model, new_patients):
    X, y, groups, time = new_patients
    errors = []
    for shots in (0, 1, 5):
        support, query = time < 30 * shots, time >= 150
        adapted = (
            model.adapt(X[support], y[support], groups=groups[support], time=time[support])
            if shots
            else model.unadapted()
        )
        queried = groups[query] if shots else None
        predicted = adapted.predict(X[query], groups=queried, time=time[query])
        errors.append(np.mean((predicted - y[query]) ** 2))
    assert errors[2] < errors[1] < errors[0]


def test_one_patient_at_a_time_equals_all_in_one_batch(model, halves):
    support, query = halves
    together = _predict(_adapt(model, support), query)
    for patient in np.unique(query.groups):
        own, later = support.groups == patient, query.groups == patient
        one = model.adapt(support.X[own], support.y[own], time=support.time[own])
        alone = one.predict(query.X[later], time=query.time[later])
        np.testing.assert_allclose(alone, together[later], rtol=1e-5)


def test_order_of_the_rows_changes_nothing(model, halves):
    support, query = halves
    order = np.random.default_rng(0).permutation(len(support.y))
    shuffled = type(support)(
        support.X.iloc[order], support.y[order], support.groups[order], support.time[order]
    )
    np.testing.assert_allclose(
        _predict(_adapt(model, shuffled), query), _predict(_adapt(model, support), query), rtol=1e-5
    )
    back = np.random.default_rng(1).permutation(len(query.y))
    mixed = type(query)(query.X.iloc[back], query.y[back], query.groups[back], query.time[back])
    np.testing.assert_allclose(
        _predict(_adapt(model, support), mixed),
        _predict(_adapt(model, support), query)[back],
        rtol=1e-5,
    )


def test_update_equals_adapting_to_all_rows(model, halves, new_patients):
    support, query = halves
    first = new_patients.time < 30
    second = (new_patients.time >= 30) & (new_patients.time < 90)
    X, y, groups, time = new_patients
    started = model.adapt(X[first], y[first], groups=groups[first], time=time[first])
    updated = started.update(X[second], y[second], groups=groups[second], time=time[second])
    np.testing.assert_array_equal(_predict(updated, query), _predict(_adapt(model, support), query))
    assert started.n_shots_.max() == 1, "update must not change the object it started from"


def test_update_lets_new_patients_join(model, halves):
    support, _ = halves
    known = support.groups < 1010
    X, y, groups, time = support
    adapted = model.adapt(X[known], y[known], groups=groups[known], time=time[known])
    joined = adapted.update(X[~known], y[~known], groups=groups[~known], time=time[~known])
    assert joined.n_tasks == 20
    np.testing.assert_array_equal(joined.n_shots_, 3)


def test_same_visit_measurements_of_the_query_change_nothing(patients):
    """Law 6: a measured feature at or after the point never informs its prediction."""
    X, y, groups, time = patients
    X = X.assign(lab=y + np.random.default_rng(0).normal(0, 0.1, len(y)))
    schema = Schema(
        (Feature("age"), Feature("sex", "categorical"), Feature("lab", role="measured")),
        Outcome("y"),
        task="patient",
        time=Clock("day"),
    )
    fitted = small_model(schema=schema, max_steps=50).fit(X, y, groups=groups, time=time)
    support, query = time < 90, time >= 90
    adapted = fitted.adapt(X[support], y[support], groups=groups[support], time=time[support])
    scrambled = X.assign(lab=np.random.default_rng(1).normal(0, 1e3, len(y)))
    np.testing.assert_array_equal(
        adapted.predict(scrambled[query], groups=groups[query], time=time[query]),
        adapted.predict(X[query], groups=groups[query], time=time[query]),
    )
    np.testing.assert_array_equal(
        fitted.predict(scrambled, time=time), fitted.predict(X, time=time)
    )
    # but the support's own values do inform
    moved = fitted.adapt(scrambled[support], y[support], groups=groups[support], time=time[support])
    assert not np.allclose(
        moved.predict(X[query], groups=groups[query], time=time[query]),
        adapted.predict(X[query], groups=groups[query], time=time[query]),
    )


def test_a_clock_with_an_unknown_origin_serves_through_differences_only(patients):
    X, y, groups, time = patients
    schema = Schema(
        (Feature("age"), Feature("sex", "categorical")),
        Outcome("y"),
        time=Clock("day", is_feature=False),
    )
    fitted = small_model(schema=schema, max_steps=30).fit(X, y, groups=groups, time=time)
    support, query = time < 90, time >= 90

    def predicted(shift):
        adapted = fitted.adapt(
            X[support], y[support], groups=groups[support], time=time[support] + shift
        )
        return adapted.predict(X[query], groups=groups[query], time=time[query] + shift)

    np.testing.assert_array_equal(predicted(0.0), predicted(4096.0))
    np.testing.assert_array_equal(fitted.predict(X, time=time), fitted.predict(X, time=time + 1e4))


def test_quantiles_are_those_of_the_predictive_distribution(model, halves):
    support, query = halves
    adapted = _adapt(model, support)
    found = adapted.predict_distribution(query.X, groups=query.groups, time=query.time)
    quantiles = adapted.predict_quantiles(query.X, (0.2,), groups=query.groups, time=query.time)
    np.testing.assert_array_equal(found.quantile(0.2), quantiles[:, 0])


def test_intervals_and_quantiles_belong_together_and_narrow_with_shots(model, halves):
    support, query = halves
    keywords = {"groups": query.groups, "time": query.time}
    adapted = _adapt(model, support)
    low, high = adapted.predict_interval(query.X, confidence_level=0.8, **keywords).T
    quantiles = adapted.predict_quantiles(query.X, (0.1, 0.5, 0.9), **keywords)
    np.testing.assert_array_equal(quantiles[:, [0, 2]], np.column_stack([low, high]))
    np.testing.assert_allclose(quantiles[:, 1], adapted.predict(query.X, **keywords))
    wide = model.unadapted().predict_interval(query.X, time=query.time, confidence_level=0.8)
    assert np.all(high - low < wide[:, 1] - wide[:, 0])
    covered = np.mean((low <= query.y) & (query.y <= high))
    assert 0.6 < covered < 0.95


@pytest.mark.parametrize("transform", ["log", "sqrt"])
def test_outcome_transforms_come_back_on_the_outcomes_scale(patients, transform):
    X, y, groups, time = patients
    fitted = small_model(outcome_transform=transform).fit(X, y, groups=groups, time=time)
    population = fitted.unadapted()
    low, median, high = population.predict_quantiles(X, time=time).T
    mean = population.predict(X, time=time)
    assert np.all(low < median)
    assert np.all(median < mean), "the mean of a right-skewed distribution exceeds its median"
    assert np.all(mean < high)
    assert abs(np.mean(mean) - np.mean(y)) < 2


def test_student_t_resists_a_gross_error_in_the_support(patients, halves):
    X, y, groups, time = patients
    support, query = halves
    dirty = support._replace(y=np.where(np.arange(len(support.y)) % 3 == 1, 5e3, support.y))
    errors = {}
    for likelihood in ("normal", "student_t"):
        fitted = small_model(likelihood=likelihood).fit(X, y, groups=groups, time=time)
        errors[likelihood] = np.abs(_predict(_adapt(fitted, dirty), query) - query.y).mean()
    assert errors["student_t"] < 5 < errors["normal"]


@pytest.mark.parametrize("convert", [pl.from_pandas, lambda X: X], ids=["polars", "pandas"])
def test_any_frame_gives_the_same_numbers(patients, halves, convert):
    X, y, groups, time = patients
    support, query = halves
    fitted = small_model(max_steps=10).fit(convert(X), y, groups=groups, time=time)
    adapted = fitted.adapt(
        convert(support.X),
        pl.Series(support.y),
        groups=pd.Series(support.groups),
        time=support.time,
    )
    predicted = adapted.predict(convert(query.X), groups=query.groups, time=query.time)
    reference = small_model(max_steps=10).fit(X, y, groups=groups, time=time)
    np.testing.assert_array_equal(predicted, _predict(_adapt(reference, support), query))


def test_numpy_rows_work_without_names(patients):
    _, y, groups, _ = patients
    X = np.random.default_rng(0).normal(size=(len(y), 2))
    fitted = small_model(max_steps=10).fit(X, y, groups=groups)
    assert fitted.adapt(X[:3], y[:3]).predict(X[3:6]).shape == (3,)
    assert not hasattr(fitted, "feature_names_in_")


def test_datetimes_serve_as_time(patients):
    X, y, groups, time = patients
    stamps = pd.Timestamp("2020-01-01") + pd.to_timedelta(time, unit="D")
    numbers = small_model(max_steps=10).fit(X, y, groups=groups, time=time)
    dates = small_model(max_steps=10).fit(X, y, groups=groups, time=stamps)
    np.testing.assert_allclose(
        numbers.predict(X, time=time), dates.predict(X, time=stamps), rtol=1e-4
    )


def test_rows_of_new_tasks_raise_or_warn(model, halves):
    support, query = halves
    some = support.groups < 1010
    X, y, groups, time = support
    adapted = model.adapt(X[some], y[some], groups=groups[some], time=time[some])
    new = query.groups >= 1010
    with pytest.raises(DataError, match=r"30 of 60 rows .* not adapted.*new_groups='population'"):
        _predict(adapted, query)
    keywords = {"groups": query.groups, "time": query.time}
    filled = adapted.predict(query.X, new_groups="population", **keywords)
    np.testing.assert_allclose(filled[new], model.predict(query.X, time=query.time)[new], rtol=1e-5)
    known = adapted.predict(query.X[~new], groups=query.groups[~new], time=query.time[~new])
    np.testing.assert_allclose(filled[~new], known, rtol=1e-5)
    missing = adapted.predict_interval(query.X, new_groups="nan", **keywords)
    assert np.isnan(missing[new]).all()
    assert np.isfinite(missing[~new]).all()


CHECKED = MetaRegressor(
    MAML(inner_steps=1),
    MLP((8,), "tanh"),
    max_steps=120,
    batch_size=8,
    learning_rate=0.03,
    validation_fraction=0.0,
    precision="float64",  # scikit-learn asks for 1e-7 between batches of different shape
    random_state=0,
    verbose=False,
)


def test_point_predictions_refuse_intervals(patients, halves):
    X, y, groups, time = patients
    adapted = _adapt(LastValue().fit(X, y, groups=groups, time=time), halves[0])
    with pytest.raises(DataError, match="LastValue.*point predictions only"):
        adapted.predict_interval(halves[1].X, groups=halves[1].groups, time=halves[1].time)


@pytest.mark.filterwarnings("ignore:groups=None")
@parametrize_with_checks([CHECKED])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_weights_of_rows_change_the_score_and_equal_ones_do_not(model, new_patients):
    X, y, groups, time = new_patients
    rows = {"groups": groups, "time": time}
    plain = model.score(X, y, **rows)
    assert model.score(X, y, **rows, sample_weight=np.full(len(y), 2.0)) == pytest.approx(plain)
    kept = groups < 1010
    weighted = model.score(X, y, **rows, sample_weight=kept.astype(float))
    part = {name: values[kept] for name, values in rows.items()}
    assert weighted == pytest.approx(model.score(X[kept], y[kept], **part))
    with pytest.raises(DataError, match="sample_weight must be one number per row"):
        model.score(X, y, **rows, sample_weight=[1.0])


def test_rows_of_several_tasks_are_not_predicted_from_one_support(model, new_patients):
    X, y, groups, time = new_patients
    one = model.adapt(X[:2], y[:2], time=time[:2])
    assert len(one.predict(X[2:4], time=time[2:4], groups=[7, 7])) == 2
    with pytest.raises(GroupError, match="of 2 tasks, but the model was adapted to one, without"):
        one.predict(X[2:4], time=time[2:4], groups=[7, 8])
    assert len(model.unadapted().predict(X[2:4], time=time[2:4], groups=[7, 8])) == 2
