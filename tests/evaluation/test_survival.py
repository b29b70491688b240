"""Survival scores: the values of other programs, the uncensored formulas, and refusals."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from ehrmeta.data.labels import survival_array
from ehrmeta.errors import DataError
from ehrmeta.evaluation import (
    aalen_johansen,
    integrated_survival_brier,
    kaplan_meier,
    labels_at,
    risk_score,
    survival_auroc,
    survival_brier,
)
from tests.evaluation.follow_up import ANY, COMPETING, EVENT, RISK, RISK_BY, TIME, TIMES


def test_one_kind_of_event_gives_the_values_of_scikit_survival():
    # scikit-survival 0.28.0: brier_score, integrated_brier_score, cumulative_dynamic_auc
    brier = [0.0924531176290574, 0.19021172117132232, 0.24560000856029024]
    np.testing.assert_allclose(survival_brier(ANY, RISK_BY, times=TIMES), brier, atol=1e-9)
    found = integrated_survival_brier(ANY, RISK_BY, times=TIMES)
    assert found == pytest.approx(0.17961914213299807, abs=1e-9)
    auc = [0.8275409836065575, 0.7542425873698418, 0.8633562780761941]
    np.testing.assert_allclose(survival_auroc(ANY, RISK, times=TIMES), auc, atol=1e-9)


def test_curves_are_those_of_lifelines():
    # lifelines 0.30.3: AalenJohansenFitter(jitter_level=0), KaplanMeierFitter
    incidence = [0.08653846153846156, 0.21804111682686114, 0.41213838626663407]
    np.testing.assert_allclose(aalen_johansen(COMPETING, times=TIMES), incidence, atol=1e-9)
    event_free = [0.8786472148541115, 0.6720174232264223, 0.4108083117423119]
    np.testing.assert_allclose(kaplan_meier(ANY, times=TIMES), event_free, atol=1e-9)


def test_incidences_and_survival_sum_to_one():
    total = kaplan_meier(COMPETING, times=TIMES)
    for cause in (1, 2):
        total = total + aalen_johansen(COMPETING, times=TIMES, cause=cause)
    np.testing.assert_allclose(total, 1)


def test_one_minus_kaplan_meier_overstates_where_events_compete():
    alone = survival_array(EVENT == 1, TIME)
    assert np.all(1 - kaplan_meier(alone, times=TIMES) > aalen_johansen(COMPETING, times=TIMES))


def test_without_censoring_scores_are_those_of_the_labels():
    y = survival_array(np.where(EVENT == 0, 1, EVENT), TIME)
    for time, risk in zip(TIMES, RISK_BY.T, strict=True):
        label = (y["event"] == 1) & (y["time"] <= time)
        found = survival_brier(y, risk, times=[time])[0]
        assert found == pytest.approx(brier_score_loss(label, risk))
        assert survival_auroc(y, risk, times=[time])[0] == pytest.approx(roc_auc_score(label, risk))


def test_weighted_labels_count_as_many_patients_and_events_as_there_are():
    """Exactly: the weighted share of events is the estimate of Aalen and Johansen."""
    for time in TIMES:
        label, weight = labels_at(COMPETING, horizon=time)
        assert weight.sum() == pytest.approx(len(label))
        share = aalen_johansen(COMPETING, times=[time])[0]
        assert np.mean(weight * label) == pytest.approx(share)
        ratio = risk_score("e_o_ratio", label, np.full(len(label), share), sample_weight=weight)
        assert ratio == pytest.approx(1)


def test_at_one_time_events_come_before_censoring():
    y = survival_array([1, 0, 0, 1], [1.0, 1.0, 2.0, 2.0])
    label, weight = labels_at(y, horizon=2.0)
    np.testing.assert_array_equal(label, [1, 0, 0, 1])
    # Of three followed past the event at time 1, one is lost: the others stand for 1.5 each.
    np.testing.assert_allclose(weight, [1, 0, 1.5, 1.5])


def test_whoever_is_followed_to_the_horizon_exactly_is_known():
    y = survival_array([1, 0, 0], [1.0, 5.0, 5.0])
    label, weight = labels_at(y, horizon=5.0)
    np.testing.assert_array_equal(label, [1, 0, 0])
    np.testing.assert_array_equal(weight, 1)


def test_weights_undo_censoring_that_rests_on_chance():
    rng = np.random.default_rng(0)
    n = 20_000
    hazard = np.exp(rng.normal(-1, 0.7, n))
    first, second = rng.exponential(1 / hazard), rng.exponential(3, n)
    time, event = np.minimum(first, second), np.where(first < second, 1, 2)
    lost = rng.exponential(2.5, n)
    whole = survival_array(event, time)
    censored = survival_array(np.where(lost < time, 0, event), np.minimum(lost, time))
    p = 1 - np.exp(-hazard)
    for score in (survival_auroc, survival_brier):
        expected = score(whole, p, times=[1.5])
        np.testing.assert_allclose(score(censored, p, times=[1.5]), expected, atol=0.01)


def test_the_censoring_of_others_can_be_used():
    expected = survival_brier(COMPETING, RISK_BY, times=TIMES)
    twice = np.concatenate([COMPETING, COMPETING])
    found = survival_brier(COMPETING, RISK_BY, times=TIMES, y_train=twice)
    np.testing.assert_allclose(found, expected)


def raw(event, time):
    return np.array(list(zip(event, time, strict=True)), dtype=[("event", "i8"), ("time", "f8")])


@pytest.mark.parametrize(
    ("y", "horizon", "reason"),
    [
        (EVENT, 5, "structured array"),
        (COMPETING[:0], 5, "one row per patient"),
        (raw([1, 0], [-1.0, 2.0]), 1, "negative .* in 1 of 2 rows"),
        (raw([1, 0], [0.0, 2.0]), 1, r"after entry\) in 1 of 2 rows"),
        (raw([1, 0], [np.nan, 2.0]), 1, "missing or infinite in 1 of 2"),
        (survival_array([1, 0], [1.0, 2.0]), 3, "beyond the last follow-up time, 2"),
        (survival_array([1, 0], [1.0, 2.0]), -1, "not negative"),
    ],
)
def test_impossible_follow_up_is_refused(y, horizon, reason):
    with pytest.raises(DataError, match=reason):
        labels_at(y, horizon=horizon)


def test_a_training_set_without_long_follow_up_is_refused():
    with pytest.raises(DataError, match="beyond the last follow-up time"):
        survival_brier(ANY, RISK_BY, times=TIMES, y_train=survival_array([1, 0], [1.0, 2.0]))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"times": [0.5]}, "no event by then"),
        ({"times": [2.0, 1.0]}, "increasing"),
        ({"times": [2.0], "cause": 0}, "cause is 0"),
        ({"times": [2.0], "y_prob": RISK[:5]}, "shape"),
        ({"times": [2.0], "y_prob": np.full(60, np.nan)}, "NaN or infinite in 60"),
    ],
)
def test_the_auroc_says_why_it_is_not_defined(arguments, reason):
    arguments = {"y_prob": RISK} | arguments
    with pytest.raises(DataError, match=reason):
        survival_auroc(COMPETING, arguments.pop("y_prob"), **arguments)


def test_a_brier_score_needs_probabilities_by_every_time():
    with pytest.raises(DataError, match="between 0 and 1"):
        survival_brier(COMPETING, 10 * RISK_BY, times=TIMES)
    with pytest.raises(DataError, match=r"pass \(row, time\)"):
        survival_brier(COMPETING, RISK, times=TIMES)
    with pytest.raises(DataError, match="at least two times"):
        integrated_survival_brier(COMPETING, RISK, times=[1.0])
