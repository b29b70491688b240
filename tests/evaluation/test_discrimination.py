"""Areas are shares of ordered pairs; net benefit is its formula, and dcurves' values."""

import numpy as np
import pytest

from ehrmeta.errors import DataError
from ehrmeta.evaluation import decision_curve, net_benefit
from ehrmeta.evaluation.discrimination import auprc, auroc, read_binary
from tests.evaluation.follow_up import EVENT, RISK

THRESHOLD = np.array([0.1, 0.2, 0.3, 0.5, 0.8])


def test_values_are_those_of_dcurves():
    # dcurves 1.1.7: dca(data, outcome, modelnames, thresholds).net_benefit
    model = [0.4222222222222222, 0.29166666666666663, 0.18095238095238092, 0.05, 0.0]
    treat_all = [0.4444444444444444, 0.375, 0.2857142857142857, 0.0, -1.5000000000000004]
    curve = decision_curve(EVENT == 1, RISK, threshold=THRESHOLD)
    np.testing.assert_allclose(curve.model, model, atol=1e-12)
    np.testing.assert_allclose(curve.treat_all, treat_all, atol=1e-12)
    np.testing.assert_array_equal(curve.treat_none, 0)


def test_knowing_everything_is_worth_the_prevalence_at_every_threshold():
    y = np.array([0, 0, 1, 0])
    np.testing.assert_allclose(net_benefit(y, y, threshold=THRESHOLD), 0.25)


def test_at_threshold_zero_everyone_is_treated_and_a_risk_at_the_threshold_counts():
    y, p = [0, 1, 1], [0.0, 0.2, 0.7]
    curve = decision_curve(y, p, threshold=[0.0])
    assert curve.model == curve.treat_all == pytest.approx(2 / 3)
    assert net_benefit(y, p, threshold=[0.2])[0] == pytest.approx(2 / 3)


def test_a_weight_of_two_is_a_row_twice():
    y, p, times = np.array([0, 1, 1]), np.array([0.6, 0.2, 0.7]), [2, 1, 3]
    twice = net_benefit(np.repeat(y, times), np.repeat(p, times), threshold=THRESHOLD)
    benefit = net_benefit(y, p, threshold=THRESHOLD, sample_weight=times)
    np.testing.assert_allclose(benefit, twice)


def test_the_default_thresholds_are_the_percents():
    curve = decision_curve([0, 1], [0.1, 0.4])
    np.testing.assert_allclose(curve.threshold, np.linspace(0.01, 0.99, 99))


@pytest.mark.parametrize("threshold", [[1.0], [-0.1], [np.nan]])
def test_thresholds_outside_zero_to_one_are_refused(threshold):
    with pytest.raises(DataError, match="threshold"):
        net_benefit([0, 1], [0.1, 0.2], threshold=threshold)


def test_the_auroc_is_the_share_of_pairs_in_order_and_ties_count_half():
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, 40).astype(float), rng.integers(0, 8, 40) / 8
    events, others = p[y == 1], p[y == 0]
    difference = np.sign(events[:, None] - others)
    assert auroc(y, p, np.ones((1, 40)))[0] == pytest.approx(0.5 + 0.5 * difference.mean())
    assert auroc(1 - y, 1 - p, np.ones((1, 40)))[0] == pytest.approx(0.5 + 0.5 * difference.mean())


def test_a_model_that_knows_nothing_has_the_prevalence_as_precision():
    y, weight = np.array([0.0, 1.0, 0.0, 1.0]), np.array([[1.0, 1, 1, 1], [0, 0, 1, 3]])
    np.testing.assert_allclose(auprc(y, np.full(4, 0.3), weight), [0.5, 0.75])


def test_rows_of_weight_zero_do_not_count():
    data = read_binary([0, 1, 1], [0.1, 0.2, 0.3], [0, 1, 2])
    assert not data.has_both_classes
    assert read_binary([False, True], [0.1, 0.2]).has_both_classes
