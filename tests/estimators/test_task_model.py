"""A task model works without any estimator, and says what it cannot do."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest

from ehrmeta import Clock, Feature, Schema
from ehrmeta.baselines import LastValue, MixedEffects
from ehrmeta.errors import (
    AtypicalWarning,
    BundleError,
    DataError,
    DataWarning,
    GroupError,
    SchemaError,
)
from ehrmeta.estimators import TaskModel
from ehrmeta.estimators.task_model import (
    check_new_groups,
    last_times,
    one_task,
    refuse_new,
    task_numbers,
    warn_of_atypical_tasks,
    warn_of_past_rows,
)
from tests.estimators.patients import make_patients

SEEN, NEW = make_patients(n_patients=40), make_patients(n_patients=3, seed=1)


@pytest.fixture(scope="module")
def estimator() -> MixedEffects:
    return MixedEffects().fit(SEEN.X, SEEN.y, groups=SEEN.groups, time=SEEN.time)


@pytest.fixture(scope="module")
def model(estimator) -> TaskModel:
    return estimator.model_


def test_it_predicts_alone_what_the_estimator_predicts(estimator, model):
    support_rows = NEW.time < np.median(NEW.time)
    given = {"groups": NEW.groups[support_rows], "time": NEW.time[support_rows]}
    labels, support = model.read_support(NEW.X[support_rows], NEW.y[support_rows], **given)
    later = {"groups": NEW.groups[~support_rows], "time": NEW.time[~support_rows]}
    inputs = model.read(NEW.X[~support_rows], **later)
    query = model.table.rows(inputs, np.searchsorted(labels, later["groups"]), len(labels))
    alone = model.predict(support, model.adapt(support), query)
    adapted = estimator.adapt(NEW.X[support_rows], NEW.y[support_rows], **given)
    np.testing.assert_array_equal(
        alone.take(np.argsort(query.origin.numpy())).point(),
        adapted.predict(NEW.X[~support_rows], **later),
    )


def test_no_rows_are_the_population(estimator, model):
    query = model.table.rows(
        model.read(NEW.X, time=NEW.time), np.zeros(len(NEW.y), np.int64), n_tasks=1
    )
    nothing = model.no_rows()
    point = model.predict(nothing, model.adapt(nothing), query).point()
    expected = estimator.predict(NEW.X, time=NEW.time)
    np.testing.assert_array_equal(point[np.argsort(query.origin.numpy())], expected)
    assert model.atypical(nothing, model.adapt(nothing)) == [1.0]


def test_rows_of_a_further_call_join_their_tasks(model):
    first, rest = NEW.groups == NEW.groups[0], NEW.groups != NEW.groups[0]
    whole = model.read_support(NEW.X, NEW.y, groups=NEW.groups, time=NEW.time)
    parts = model.read_support(
        NEW.X[first], NEW.y[first], groups=NEW.groups[first], time=NEW.time[first]
    )
    labels, support = model.read_more(
        *parts, NEW.X[rest], NEW.y[rest], groups=NEW.groups[rest], time=NEW.time[rest]
    )
    np.testing.assert_array_equal(labels, whole[0])
    np.testing.assert_array_equal(support.y, whole[1].y)
    np.testing.assert_array_equal(support.starts, whole[1].starts)
    with pytest.raises(GroupError, match="update was called without groups"):
        model.read_more(*parts, NEW.X[rest], NEW.y[rest], groups=None, time=NEW.time[rest])


def test_other_columns_than_those_of_fit_are_refused(model):
    with pytest.raises(SchemaError, match="Pass the columns of fit"):
        model.read(NEW.X[["age"]], time=NEW.time)
    with pytest.raises(DataError, match="time is missing"):
        model.read(NEW.X)
    with pytest.raises(DataError, match="requires y"):
        model.read_support(NEW.X, None, time=NEW.time)


def test_a_model_that_cannot_do_a_thing_names_itself(model):
    with pytest.raises(BundleError, match="MixedEffects cannot be saved"):
        model.to_state()
    with pytest.raises(DataError, match="MixedEffects has no audit records"):
        model.digests(None)
    last = LastValue().fit(SEEN.X, SEEN.y, groups=SEEN.groups, time=SEEN.time).model_
    _, support = last.read_support(NEW.X, NEW.y, groups=NEW.groups, time=NEW.time)
    with pytest.raises(DataError, match="LastValue has no support weights"):
        last.support_weights(support, None, support)
    assert np.isnan(last.own_weight(support, None, support)).all()
    assert np.isnan(last.effects(support, None)[0]).all()
    assert last.response(support, support) is None


NEAR = {"groups": NEW.groups[:6], "time": NEW.time[:6]}
FEATURES = (Feature("age"), Feature("sex", kind="categorical"))


def test_rows_far_outside_the_training_period_are_warned_of(model):
    """The period is rounded to whole standard deviations; its length more is allowed."""
    first, last = model.table.period
    edge = np.array([first - (last - first), last + (last - first)])
    assert model.read(NEW.X[:2], time=edge).n_rows == 2
    beyond = edge + [-1e-6, 1e-6]
    with pytest.warns(DataWarning, match=r"time of 2 of 3 rows \(first: row 1\) lies far outside"):
        model.read(NEW.X[:3], time=[0.0, *beyond])
    point = replace(model, table=replace(model.table, period=(5.0, 5.0)))
    unit = model.table.time_scale
    assert point.read(NEW.X[:2], time=[5.0 - unit, 5.0 + unit]).n_rows == 2
    for changes in ({"period": None}, {"clock_is_feature": False}):
        silent = replace(model, table=replace(model.table, **changes))
        assert silent.read(NEW.X[:2], time=beyond).n_rows == 2


def test_dates_need_dates_at_fit_or_an_origin(estimator, model):
    days = pd.Timestamp("2020-01-01") + pd.to_timedelta(NEW.time, unit="D")
    with pytest.raises(DataError, match="fitted with numbers, and the schema has no origin"):
        model.read(NEW.X, time=days)
    schema = Schema(FEATURES, time=Clock("day", origin="2020-01-01"))
    with_origin = replace(model, schema=schema)
    np.testing.assert_allclose(with_origin.read(NEW.X, time=days).time, NEW.time)
    for zoned in (True, False):
        strict = replace(model, table=replace(model.table, dated=True, zoned=zoned))
        with pytest.raises(DataError, match="time zone"):
            strict.read(NEW.X, time=days.tz_localize(None if zoned else "UTC"))
        declared = replace(schema, time=replace(schema.time, zoned=zoned))
        old = replace(model, schema=declared, table=replace(model.table, zoned=None))
        with pytest.raises(DataError, match="time zone"):
            old.read(NEW.X, time=days.tz_localize(None if zoned else "UTC"))


def test_time_is_given_where_it_was_given_at_fit_and_only_there():
    untimed = MixedEffects().fit(SEEN.X, SEEN.y, groups=SEEN.groups).model_
    with pytest.raises(DataError, match="time was given, but the model was fitted without"):
        untimed.read(NEW.X, time=NEW.time)
    nobody = {"groups": np.empty(0), "time": np.empty(0)}
    with pytest.raises(DataError, match="groups but no rows"):
        MixedEffects().fit(SEEN.X, SEEN.y, groups=SEEN.groups, time=SEEN.time).model_.read_support(
            NEW.X[:0], NEW.y[:0], **nobody
        )


def test_columns_are_named_where_their_number_is_right(model):
    with pytest.raises(SchemaError, match="feature names should match"):
        model.read(NEW.X.rename(columns={"age": "years"}), time=NEW.time)
    by_place = replace(model, column_names=None)
    with pytest.raises(SchemaError, match=r"missing \['age', 'sex'\], unknown \['x0', 'x1'\]"):
        by_place.read(np.zeros((2, 2)), time=[0.0, 1.0])


def test_supports_hold_their_labels_and_one_task_has_none(model):
    labels, support = model.read_support(NEW.X[:6], NEW.y[:6], **NEAR)
    assert labels.tolist() == [0]
    nameless, alone = model.read_support(NEW.X[:6], NEW.y[:6], time=NEW.time[:6])
    assert nameless is None
    assert alone.n_tasks == 1
    np.testing.assert_array_equal(alone.y, support.y)
    none, empty = model.read_support(NEW.X[:0], NEW.y[:0], time=NEW.time[:0])
    assert (none, empty.n_tasks, empty.n_rows) == (None, 1, 0)
    more, both = model.read_more(
        None, alone, NEW.X[6:8], NEW.y[6:8], groups=None, time=NEW.time[6:8] + 200.0
    )
    assert (more, both.n_tasks, both.n_rows) == (None, 1, 8)
    assert both.origin.tolist() == list(range(8))
    assert model.no_rows(3).n_tasks == 3


def test_visits_of_an_update_may_not_repeat_a_time(model):
    parts = model.read_support(NEW.X[:6], NEW.y[:6], **NEAR)
    again = {"groups": NEW.groups[5:7], "time": NEW.time[5:7]}
    with pytest.warns(DataWarning, match=r"1 rows of the update repeat.*first in task 0 of 2"):
        model.read_more(*parts, NEW.X[5:7], NEW.y[5:7], **again)
    for kind, refuses in (("patient", True), ("cohort", False)):
        strict = replace(model, schema=Schema(FEATURES, time=Clock("day"), task_kind=kind))
        if refuses:
            with pytest.raises(DataError, match="Pass only new visits"):
                strict.read_more(*parts, NEW.X[5:7], NEW.y[5:7], **again)
        else:
            strict.read_more(*parts, NEW.X[5:7], NEW.y[5:7], **again)
    with pytest.raises(GroupError, match="called with groups, adapt without"):
        model.read_more(None, parts[1], NEW.X[:1], NEW.y[:1], groups=[0], time=[200.0])


def test_rows_belong_to_the_task_of_their_label(model):
    labels = np.array([3, 5])
    inputs = model.read(NEW.X[:3], groups=[5, 4, 3], time=[0.0, 1.0, 2.0])
    assert task_numbers(inputs, labels, 1).tolist() == [1, -1, 0]
    with pytest.raises(GroupError, match=r"1 of 3 rows \(first: row 1\) belong to tasks"):
        refuse_new(task_numbers(inputs, labels, 1), inputs.groups, labels)
    assert refuse_new(np.array([0, 1]), None, labels) is None
    with pytest.raises(GroupError, match="groups holds numbers, but .* ids that are text"):
        task_numbers(inputs, np.array(["a"], dtype=object), 1)
    words = replace(inputs, groups=np.array(["a", "b", "c"], dtype=object))
    with pytest.raises(GroupError, match="groups holds text, but .* ids that are numbers"):
        task_numbers(words, labels, 1)
    assert task_numbers(replace(inputs, groups=None), None, 1).tolist() == [0, 0, 0]
    with pytest.raises(GroupError, match="adapted to 2 tasks with ids"):
        task_numbers(replace(inputs, groups=None), labels, 1)


def test_several_tasks_have_the_prediction_of_one_only_without_its_rows(model):
    inputs = model.read(NEW.X[:2], groups=[5, 4], time=[0.0, 1.0])
    assert one_task(inputs, 0).tolist() == [0, 0]
    with pytest.raises(GroupError, match="rows are of 2 tasks"):
        one_task(inputs, 1)
    assert one_task(replace(inputs, groups=np.array([5, 5])), 1).tolist() == [0, 0]
    for known in ("error", "population", "nan"):
        check_new_groups(known)
    with pytest.raises(DataError, match="got 'drop'"):
        check_new_groups("drop")


def test_last_times_are_those_of_the_last_support_rows(model):
    _, support = model.read_support(NEW.X, NEW.y, groups=NEW.groups, time=NEW.time)
    assert last_times(support).tolist() == [150.0, 150.0, 150.0, -np.inf]
    assert last_times(model.no_rows(2)).tolist() == [-np.inf] * 3


def test_rows_that_are_not_later_than_the_support_are_counted():
    last, codes = np.array([5.0, 9.0, -np.inf]), np.array([0, 1, -1, 0])
    with pytest.warns(DataWarning, match=r"2 of 4 rows \(first: row 1, of task 1 of 2\) are not"):
        warn_of_past_rows(np.array([5.1, 9.0, -1e9, 4.0]), codes, last)
    warn_of_past_rows(np.array([5.1, 9.1, -1e9, 6.0]), codes, last)
    warn_of_past_rows(None, codes, last)


def test_supports_below_one_in_a_thousand_are_atypical():
    with pytest.warns(AtypicalWarning, match=r"1 of 4 .*first: task 2.*; 0.004 expected by chance"):
        warn_of_atypical_tasks(np.array([0.001, np.nan, 0.0009, 0.5]))
    warn_of_atypical_tasks(np.array([0.001, np.nan, 1.0]))


def test_warnings_point_to_the_call_that_caused_them(estimator):
    adapted = estimator.adapt(NEW.X[:6], NEW.y[:6], **NEAR)
    calls = {
        "are not later": lambda: adapted.predict(NEW.X[:6], **NEAR),
        "repeat the time": lambda: adapted.update(NEW.X[:6], NEW.y[:6], **NEAR),
        "far outside": lambda: estimator.adapt(NEW.X[:6], NEW.y[:6], time=NEW.time[:6] + 1e6),
    }
    for message, call in calls.items():
        with pytest.warns(UserWarning, match=message) as caught:
            call()
        lines = [one.lineno for one in caught if message in str(one.message)]
        assert lines == [call.__code__.co_firstlineno], message


def test_models_cannot_be_changed_and_compare_by_identity(model):
    for kind in type(model).__mro__[1:4]:
        settings = kind.__dataclass_params__
        assert (settings.frozen, settings.eq) == (True, False)
        assert all(field.kw_only for field in fields(kind))
