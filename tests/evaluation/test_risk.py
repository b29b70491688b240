"""Laws of the scores of risks: scikit-learn's and statsmodels' values, and honest refusals."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import special
from sklearn import metrics

from ehrmeta.errors import DataError
from ehrmeta.evaluation import RISK_METRICS, risk_score, risk_scores


@pytest.fixture(scope="module")
def hospital():
    """Outcomes, overfitted risks with ties, and weights."""
    rng = np.random.default_rng(0)
    logit = rng.normal(size=300).round(1)
    y = (rng.random(300) < special.expit(0.7 * logit - 0.6)).astype(float)
    return y, special.expit(logit - 1), rng.integers(0, 4, 300).astype(float)


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("auroc", metrics.roc_auc_score),
        ("auprc", metrics.average_precision_score),
        ("log_loss", metrics.log_loss),
        ("brier", metrics.brier_score_loss),
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_scores_are_scikit_learns(hospital, name, oracle, weighted):
    y, p, weight = hospital
    weight = weight if weighted else None
    expected = oracle(y, p, sample_weight=weight)
    assert risk_score(name, y, p, sample_weight=weight) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_recalibration_is_the_logistic_regression_of_statsmodels(hospital, weighted):
    y, p, weight = hospital
    weight = weight if weighted else np.ones_like(y)
    scores = risk_scores(
        y, p, sample_weight=weight, metrics=("calibration_slope", "calibration_in_the_large")
    )
    options = {"family": sm.families.Binomial(), "freq_weights": weight}
    slope = sm.GLM(y, sm.add_constant(special.logit(p)), **options).fit(tol=1e-12).params[1]
    level = sm.GLM(y, np.ones_like(y), offset=special.logit(p), **options).fit(tol=1e-12).params[0]
    assert scores["calibration_slope"] == pytest.approx(slope, abs=1e-8)
    assert scores["calibration_in_the_large"] == pytest.approx(level, abs=1e-8)


def test_ratio_and_scaled_brier_are_their_formulas(hospital):
    y, p, _ = hospital
    assert risk_score("e_o_ratio", y, p) == pytest.approx(p.sum() / y.sum())
    null = metrics.brier_score_loss(y, np.full_like(y, y.mean()))
    expected = 1 - metrics.brier_score_loss(y, p) / null
    assert risk_score("scaled_brier", y, p) == pytest.approx(expected)
    assert risk_score("scaled_brier", y, y) == 1
    assert risk_score("scaled_brier", y, np.full_like(y, y.mean())) == pytest.approx(0)


@pytest.mark.parametrize("name", [name for name in RISK_METRICS if name != "ici"])
def test_a_weight_of_two_is_a_row_twice(hospital, name):
    y, p, weight = hospital
    times = weight.astype(int)
    twice = risk_score(name, np.repeat(y, times), np.repeat(p, times))
    assert risk_score(name, y, p, sample_weight=weight) == pytest.approx(twice, abs=1e-9)


@pytest.mark.parametrize("name", list(RISK_METRICS))
def test_many_weightings_are_one_at_a_time_and_order_is_nothing(hospital, name):
    y, p, weight = hospital
    weights = np.stack([weight, np.ones_like(weight)])
    both = RISK_METRICS[name](y, p, weights)
    turned = RISK_METRICS[name](y[::-1], p[::-1], weights[:, ::-1])
    singles = [risk_score(name, y, p, sample_weight=w) for w in weights]
    np.testing.assert_allclose(both, singles, atol=1e-9)
    np.testing.assert_allclose(turned, singles, atol=1e-9)


def test_a_sample_of_one_class_is_nan_and_leaves_the_others_alone():
    y, p = np.array([0.0, 1.0, 1.0, 0.0]), np.array([0.1, 0.3, 0.7, 0.4])
    weights = np.array([[1.0, 0, 0, 1], [1, 1, 1, 1]])
    for name in ("auroc", "auprc", "scaled_brier", "calibration_slope", "e_o_ratio"):
        first, second = RISK_METRICS[name](y, p, weights)
        assert np.isnan(first), name
        assert second == pytest.approx(risk_score(name, y, p))


@pytest.mark.parametrize(
    ("name", "y", "p", "reason"),
    [
        ("auroc", [0, 0], [0.1, 0.2], "only one class, 0 events in 2 rows"),
        ("calibration_slope", [1, 1], [0.1, 0.2], "only one class, 2 events"),
        ("e_o_ratio", [0, 0], [0.1, 0.2], "only one class, 0 events"),
        ("calibration_slope", [0, 1, 0], [0.1, 1.0, 0.3], "exactly 0 or 1 in 1 rows"),
        ("calibration_slope", [0, 1], [0.3, 0.3], "all rows have the same risk"),
        ("calibration_slope", [0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], "separate events"),
        ("auroc", [0, 2], [0.1, 0.2], "neither 0 nor 1 in 1 of 2"),
        ("auroc", [0, 1], [0.1, 1.2], "outside 0 to 1 in 1 of 2"),
        ("auroc", [0, 1], [0.1, np.nan], "y_prob is NaN or infinite in 1 of 2"),
        ("auroc", [0, np.nan], [0.1, 0.2], "y_true is NaN or infinite in 1 of 2"),
        ("auroc", ["yes", "no"], [0.1, 0.2], "y_true must be numbers"),
        ("auroc", [], [], "one value for each"),
        ("auroc", [0, 1], [[0.9, 0.1], [0.2, 0.8]], "event's column"),
        ("auc", [0, 1], [0.1, 0.2], "unknown metric 'auc'"),
    ],
)
def test_rows_that_define_no_score_are_refused_with_the_reason(name, y, p, reason):
    with pytest.raises(DataError, match=reason):
        risk_score(name, y, p)


@pytest.mark.parametrize(
    ("weight", "reason"),
    [([1], "shape"), ([1, -1], "negative in 1 of 2"), ([0, 0], "0 in all"), ([1, np.nan], "NaN")],
)
def test_impossible_weights_are_refused(weight, reason):
    with pytest.raises(DataError, match=reason):
        risk_score("brier", [0, 1], [0.1, 0.2], sample_weight=weight)
