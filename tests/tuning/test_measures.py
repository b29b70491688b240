"""Errors by the k-shot protocol: each measure, its direction, and scorers of a user."""

import numpy as np
import pytest

from ehrmeta import MAML, KShotScorer, MetaClassifier, MetaRegressor, make_sinusoid, tune
from ehrmeta.errors import DataError
from ehrmeta.tuning.measures import MEASURES, read_scoring
from tests.tuning.small import lines, ridge, rows_of, search


def test_several_objectives_are_searched_at_once() -> None:
    tuned = search(
        estimator=MetaRegressor(MAML(), max_steps=2, random_state=0, verbose=False),
        space=["algorithm__inner_lr"],
        n_trials=2,
        scoring=["rmse_macro", "adapt_ms", "interval_error"],
        refit=False,
    )
    for trial in tuned.study.trials:
        error, milliseconds, calibration = trial.values
        assert error > 0
        assert milliseconds > 0
        assert 0 <= calibration <= 1


def test_a_classifier_is_scored_by_log_loss() -> None:
    X, y, groups = make_sinusoid(n_tasks=40, n_points=8, random_state=0)
    model = MetaClassifier(max_steps=1, random_state=0, verbose=False)
    tuned = tune(
        model, X, y > 0, groups=groups, n_trials=1, cv=2, space=["learning_rate"], refit=False
    )
    assert tuned.study.metric_names == ["log_loss"]
    assert 0 < tuned.value < 5


def test_a_scorer_of_ones_own_is_maximised() -> None:
    scored = search(scoring=KShotScorer(shots=(3,)))
    assert scored.study.directions[0].name == "MAXIMIZE"
    assert scored.value < 0


def test_errors_of_blocks_average_to_the_error_of_all_tasks() -> None:
    data = lines()
    model = ridge().fit(**data)
    rows = rows_of(data)
    one, two = np.zeros(len(data["y"]), int), (rows.tasks >= 20).astype(int)
    for name in ("rmse_task", "mae_macro"):  # means over tasks, 20 in each block
        whole, halves = (MEASURES[name](model, rows, blocks) for blocks in (one, two))
        assert whole[0] == pytest.approx(halves.mean())


def test_a_score_is_named_once_and_has_a_direction() -> None:
    measures, directions = read_scoring(["rmse_task", KShotScorer(shots=(3,))], ridge())
    assert list(measures) == ["rmse_task", "KShotScorer"]
    assert directions == ["minimize", "maximize"]
    with pytest.raises(DataError, match="each once"):
        read_scoring(["rmse_task", "rmse_task"], ridge())
