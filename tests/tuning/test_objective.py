"""A setting is scored by its k-shot error on held-out patients, and stopped if it is worse."""

from typing import Any

import numpy as np
import optuna
import pytest

from ehrmeta import MAML, KShotScorer, MetaClassifier, MetaRegressor, make_sinusoid, tune
from ehrmeta.errors import DataError
from ehrmeta.tuning.objective import MEASURES, read_folds, read_scoring
from tests.tuning.small import Fragile, lines, ridge, rows_of, search


def test_the_value_is_the_k_shot_error_of_the_held_out_patients() -> None:
    data = lines()
    tuned = search(space={"penalty": [2.0]}, n_trials=1)
    rows = rows_of(data)
    errors = []
    for fold in read_folds(rows, 3):
        model = ridge(penalty=2.0).fit(fold.train.X, fold.train.y, groups=fold.train.groups)
        for block in np.unique(fold.blocks):
            part = fold.test.take(fold.blocks == block)
            assert len(np.unique(part.tasks)) >= 5
            errors.append(MEASURES["rmse_macro"](model, part, np.zeros(len(part.y), int))[0])
        one_block = np.zeros(len(fold.test.y), int)
        scorer = KShotScorer(shots=(3,))
        assert MEASURES["rmse_macro"](model, fold.test, one_block)[0] == pytest.approx(
            -scorer(model, fold.test.X, fold.test.y, groups=fold.test.groups), rel=0.1
        )
    assert len(tuned.study.trials[0].intermediate_values) == len(errors)


def test_no_patient_is_in_training_and_held_out() -> None:
    data = lines()
    rows = rows_of(data)
    for fold in read_folds(rows, 4):
        assert not set(fold.train.tasks) & set(fold.test.tasks)
        for patient in np.unique(fold.test.tasks):
            assert len(np.unique(fold.blocks[fold.test.tasks == patient])) == 1


def test_a_worse_setting_is_given_up_before_the_next_fold_is_trained() -> None:
    Fragile.fits = 0
    tuned = search(
        estimator=Fragile(score_shots=(3,)),
        space=lambda trial: {"penalty": [3.0, 1e6][trial.number]},
        n_trials=2,
        cv=4,
        refit=False,
        **lines(200),
    )
    assert Fragile.fits == 4 + 1
    assert tuned.study.trials[0].user_attrs.get("reason") is None
    assert tuned.study.trials[1].value > tuned.value
    assert tuned.study.trials[1].user_attrs["reason"] == "worse than others, in fold 1 of 4"
    assert tuned.params == {"penalty": 3.0}


@pytest.mark.parametrize("pruner", [optuna.pruners.MedianPruner(n_startup_trials=1),
                                    optuna.pruners.HyperbandPruner()])  # fmt: skip
def test_other_pruners_get_the_mean_so_far(pruner: Any) -> None:
    tuned = search(n_trials=6, pruner=pruner)
    trial = tuned.study.best_trial
    last = trial.intermediate_values[max(trial.intermediate_values)]
    assert last == pytest.approx(trial.value)


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


def test_a_custom_scorer_is_maximised() -> None:
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
