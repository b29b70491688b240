"""A setting is scored by its k-shot error on held-out patients, and stopped if it is worse."""

from typing import Any

import numpy as np
import optuna
import pytest

from ehrmeta import KShotScorer
from ehrmeta.tuning.measures import MEASURES
from ehrmeta.tuning.objective import read_folds
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
def test_other_pruners_are_told_the_mean_so_far(pruner: Any) -> None:
    tuned = search(n_trials=6, pruner=pruner)
    trial = tuned.study.best_trial
    last = trial.intermediate_values[max(trial.intermediate_values)]
    assert last == pytest.approx(trial.value)
