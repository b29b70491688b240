"""A task model works without any estimator, and says what it cannot do."""

from __future__ import annotations

import numpy as np
import pytest

from ehrmeta.baselines import LastValue, MixedEffects
from ehrmeta.errors import BundleError, DataError, GroupError, SchemaError
from ehrmeta.estimators import TaskModel
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
