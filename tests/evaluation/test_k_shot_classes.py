"""Scores of class probabilities equal those of the library's own definitions."""

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from ehrmeta import KShotScorer
from ehrmeta.baselines import TaskLogistic
from ehrmeta.errors import DataError
from ehrmeta.evaluation import k_shot_class_curve

rng = np.random.default_rng(0)
GROUPS, TIME = np.repeat(np.arange(40), 6), np.tile(np.arange(6.0), 40)
X = rng.normal(size=(240, 2))
Y, OTHERS = (np.where(X[:, 0] + rng.normal(size=40)[GROUPS] > 0, "yes", "no") for _ in range(2))
ROWS = {"groups": GROUPS, "time": TIME}


@pytest.fixture(scope="module")
def model():
    return TaskLogistic(known=["x0", "x1"]).fit(X, OTHERS, **ROWS)


def test_scores_are_those_of_the_later_rows(model):
    curve = k_shot_class_curve({"a": model}, X, Y, **ROWS, shots=(2,), n_bootstrap=0)
    value = curve.set_index("metric")["value"]
    first, later = TIME < 2, TIME >= 2
    adapted = model.adapt(X[first], Y[first], groups=GROUPS[first], time=TIME[first])
    p = adapted.predict_proba(X[later], groups=GROUPS[later], time=TIME[later])
    assert value["log_loss"] == pytest.approx(log_loss(Y[later], p))  # 4 rows of every task
    assert value["brier"] == pytest.approx(np.mean((p[:, 1] - (Y[later] == "yes")) ** 2))
    assert value["auroc"] == pytest.approx(roc_auc_score(Y[later] == "yes", p[:, 1]))


def test_a_model_does_not_differ_from_itself(model):
    curve = k_shot_class_curve({"a": model, "b": model}, X, Y, **ROWS, reference="a")
    losses = curve[curve["metric"] != "auroc"]
    assert (losses[["difference", "difference_low", "difference_high"]] == 0).all(axis=None)
    assert set(curve["k"]) == {1, 3, 5}


def test_shots_that_no_task_has_are_refused(model):
    with pytest.raises(DataError, match="none of 40 tasks has a row after the first 6"):
        k_shot_class_curve({"a": model}, X, Y, **ROWS, shots=(1, 6))


def test_a_class_unseen_at_fit_is_refused(model):
    with pytest.raises(DataError, match="unseen at fit"):
        k_shot_class_curve({"a": model}, X, np.where(Y == "no", "never", Y), **ROWS)


@pytest.mark.parametrize("metric", ["log_loss", "brier"])
def test_the_scorer_of_classifiers_is_the_mean_over_its_shots(model, metric):
    curve = k_shot_class_curve({"a": model}, X, Y, **ROWS, shots=(1, 3), n_bootstrap=0)
    expected = -curve.loc[curve["metric"] == metric, "value"].mean()
    assert KShotScorer(shots=(1, 3), metric=metric)(model, X, Y, **ROWS) == pytest.approx(expected)
    with pytest.raises(DataError, match="'rmse_macro' does not fit a TaskLogistic.*log_loss"):
        KShotScorer()(model, X, Y, **ROWS)
