"""A membership audit finds what a model tells, and nothing where there is nothing to find."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from ehrmeta import (
    Clock,
    ConformalRegressor,
    Feature,
    MetaClassifier,
    MetaRegressor,
    Outcome,
    Schema,
    Table,
)
from ehrmeta.baselines import MixedEffects
from ehrmeta.errors import DataError
from ehrmeta.report.membership import _combined, _figures, _not_negative, _toward, membership_audit

SCHEMA = Schema((Feature("age", role="static"),), Outcome("y"), task="id", time=Clock("day"))


def _table(n, seed, size=5):
    rng = np.random.default_rng(seed)
    ids, day = np.repeat(np.arange(n), size), np.tile(np.arange(float(size)), n)
    age = rng.uniform(20, 80, n)[ids]
    y = 50 + 0.1 * age + rng.normal(0, 6, n)[ids] + rng.normal(0, 2, n * size)
    frame = pd.DataFrame({"id": ids, "day": day, "age": age, "y": y})
    return Table.from_frame(frame, SCHEMA)


def _fit(model, table):
    return model.fit(table.X, table.y, groups=table.groups, time=table.time)


@pytest.fixture(scope="module")
def members():
    return _table(200, seed=0)


@pytest.fixture(scope="module")
def others():
    return _table(200, seed=1)


@pytest.fixture(scope="module")
def model():
    return _fit(MixedEffects(), _table(100, seed=2))


def test_patients_in_no_model_are_not_found(model, members, others):
    audit = membership_audit(model, members, others, n_bootstrap=200).set_index("attack")
    losses = audit[audit.index.str.startswith("loss")]
    assert len(losses) == 3
    assert losses["auc"].between(0.4, 0.6).all()
    assert (losses["auc_low"] < 0.55).all()
    assert (audit["auc_low"] <= audit["auc"]).all()
    assert (audit["auc"] <= audit["auc_high"]).all()


def test_patients_whom_a_model_predicts_better_are_found(model, members, others):
    harder = dataclasses.replace(others, y=others.y + 9 * (-1.0) ** np.arange(len(others.y)))
    audit = membership_audit(model, members, harder, shots=(1,), n_bootstrap=50)
    assert audit.loc[0, "auc_low"] > 0.9


@pytest.mark.filterwarnings("ignore:3 of 200 adapted tasks")
def test_numbers_of_single_rows_in_a_calibration_are_found(model, members, others, monkeypatch):
    calibrated = ConformalRegressor(model, shots=(1,)).calibrate(
        members.X, members.y, groups=members.groups, time=members.time
    )
    support, query = members.support_query(shots=1)
    adapted = model.adapt(support.X, support.y, groups=support.groups, time=support.time)
    predicted = adapted.predict_distribution(query.X, groups=query.groups, time=query.time)
    errors = (predicted.outcome.forward(query.y) - predicted.loc) / predicted.scale
    monkeypatch.setattr(
        type(calibrated.calibration_), "to_state", lambda _: ({}, {"errors": errors.tolist()})
    )
    audit = membership_audit(calibrated, members, others, shots=(1,), n_bootstrap=50)
    audit = audit.set_index("attack")
    assert audit.loc["calibration", ["auc", "tpr_1"]].min() > 0.99
    assert audit.loc["difference", "auc_low"] > 0.4


def test_classes_are_audited_too(members, others):
    inside, outside = (
        dataclasses.replace(table, y=np.where(table.y > 55, "high", "low"))
        for table in (members, others)
    )
    model = _fit(MetaClassifier(max_steps=1, random_state=0, verbose=False), inside)
    audit = membership_audit(model, inside, outside, shots=(0, 1), n_bootstrap=50)
    assert list(audit["attack"])[:3] == ["loss after 0 values", "loss after 1 values", "report"]


def test_the_default_loss_is_the_negative_log_density(members, others):
    """Of one patient in each table, by hand."""
    model = _fit(MetaRegressor(max_steps=1, random_state=0, verbose=False), members)
    audit = membership_audit(model, members, others, shots=(0,), n_bootstrap=2).iloc[0]
    losses = []
    for table in (members, others):
        predicted = model.unadapted().predict_distribution(table.X, time=table.time)
        error = (predicted.outcome.forward(table.y) - predicted.loc) / predicted.scale
        loss = np.log(predicted.scale) - stats.norm.logpdf(error)
        losses += [loss[table.tasks.codes == task].mean() for task in range(200)]
    is_member = np.arange(400) < 200
    assert audit["auc"] == pytest.approx(roc_auc_score(is_member, -np.array(losses)))


def test_the_figures_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    is_member, score = np.arange(300) < 100, rng.integers(0, 30, 300).astype(float)
    auc, low, high = _figures(score, is_member)
    assert auc == pytest.approx(roc_auc_score(is_member, score))
    outside = score[~is_member]
    for rate, found in ((0.01, low), (0.05, high)):
        limits = [limit for limit in np.unique(score) if np.mean(outside > limit) <= rate]
        assert found == np.mean(score[is_member] > min(limits))


def test_published_means_point_to_members_only_if_they_are_theirs():
    rng = np.random.default_rng(0)
    aucs = []
    for of_members in (True, False):
        each = []
        for _ in range(200):
            members, others, third = rng.normal(size=(3, 20, 10))
            published = (members if of_members else third).mean(axis=0)
            each.append(roc_auc_score(np.arange(40) < 20, _toward(published, members, others)))
        aucs.append(np.mean(each))
    assert aucs[0] > 0.6
    assert aucs[1] == pytest.approx(0.5, abs=0.03)


def test_too_few_patients_are_refused(model, members):
    with pytest.raises(DataError, match="non_members has 21 patients. Pass 22 or more"):
        membership_audit(model, members, _table(21, seed=3))
    with pytest.raises(DataError, match="after the first 5"):
        membership_audit(model, members, members, shots=(1, 5))


@pytest.mark.slow
def test_a_calibration_and_a_report_tell_no_more_than_the_weights(model):
    """Patients who were calibrated and reported on: 200 in and 200 out, over twelve tables."""
    differences = []
    for seed in range(12):
        inside, outside = _table(200, seed=10 + 2 * seed), _table(200, seed=11 + 2 * seed)
        calibrated = ConformalRegressor(model, shots=(0, 1, 3)).calibrate(
            inside.X, inside.y, groups=inside.groups, time=inside.time
        )
        audit = membership_audit(calibrated, inside, outside, n_bootstrap=1)
        differences.append(audit.set_index("attack").loc["difference", "auc"])
    error = np.std(differences, ddof=1) / np.sqrt(len(differences))
    assert np.mean(differences) + stats.t.ppf(0.95, 11) * error <= 0.02
    assert max(differences) <= 0.06


def test_useless_scores_get_no_weight_and_useful_ones_the_larger():
    rng = np.random.default_rng(0)
    is_member = np.arange(400) < 200
    useful = is_member + rng.normal(size=400)
    weak, turned = is_member + 3.0 * rng.normal(size=400), -useful
    x = np.column_stack([useful, weak, turned])
    x = (x - x.mean(0)) / x.std(0)
    coefficients = _not_negative(x, is_member)
    assert coefficients[0] > coefficients[1] >= 0.0
    assert coefficients[2] == 0.0
    alone = _combined([useful], is_member, 0)
    assert roc_auc_score(is_member, alone) == pytest.approx(
        roc_auc_score(is_member, useful), abs=0.01
    )
    both = _combined([weak, useful], is_member, 0)
    assert roc_auc_score(is_member, both) > roc_auc_score(is_member, weak) + 0.1
    np.testing.assert_array_equal(both, _combined([weak, useful], is_member, 0))


def test_a_difference_counts_from_chance(model, members, others):
    audit = membership_audit(model, members, others, n_bootstrap=2).set_index("attack")
    weights, every = audit["auc"].iloc[-3:-1]
    expected = max(every, 0.5) - max(weights, 0.5)
    assert audit.loc["difference", "auc"] == pytest.approx(expected)
