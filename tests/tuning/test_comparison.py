"""Trials are compared block by block, and all of them by the first fold."""

from typing import Any

import numpy as np
import optuna
import pytest

from ehrmeta.tuning.comparison import (
    BLOCKS,
    FIRST_FOLD,
    REASON,
    best_full_trial,
    excess_errors,
    expected_error,
    first_fold_study,
    full_trials,
    quiet,
    sign_of,
)
from ehrmeta.tuning.study import PairedPruner


def scored(values: Any, state: str = "RUNNING", **ended: Any) -> optuna.trial.FrozenTrial:
    """A trial with these errors by block."""
    state = optuna.trial.TrialState[state]
    return optuna.trial.create_trial(state=state, user_attrs={BLOCKS: list(values)}, **ended)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_trials_are_compared_on_the_same_blocks_however_easy_these_are(direction: str) -> None:
    sign = 1.0 if direction == "minimize" else -1.0
    study = optuna.create_study(direction=direction)
    easy, hard = np.linspace(1, 2, 8), np.linspace(11, 12, 8)
    best = sign * np.concatenate([easy, hard])
    study.add_trial(scored(best, "COMPLETE", value=float(best.mean())))
    worse = sign * (easy + 0.1 + 0.01 * np.arange(8))
    assert abs(np.mean(worse)) < abs(best.mean())
    assert PairedPruner().prune(study, scored(worse))
    assert expected_error(study, worse) == pytest.approx(best.mean() + sign * 0.135)
    better = sign * (easy - 0.1)
    assert not PairedPruner().prune(study, scored(better))
    assert expected_error(study, better) == pytest.approx(best.mean())
    mixed = best[:8] + sign * np.tile([0.3, -0.2], 4)
    assert not PairedPruner().prune(study, scored(mixed))


def ended(value: float, first_fold: float | None, **attributes: Any) -> optuna.trial.FrozenTrial:
    attributes |= {} if first_fold is None else {FIRST_FOLD: first_fold}
    return optuna.trial.create_trial(
        value=value,
        params={"x": value},
        distributions={"x": optuna.distributions.FloatDistribution(-100, 100)},
        user_attrs=attributes,
    )


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_only_trials_scored_on_all_folds_can_be_best(direction: str) -> None:
    study = optuna.create_study(direction=direction)
    assert best_full_trial(study) is None
    sign = sign_of(study)
    study.add_trial(ended(sign * 2.0, None))
    study.add_trial(ended(sign * 3.0, None))
    study.add_trial(ended(sign * 1.0, None, **{REASON: "worse than others"}))
    assert [trial.number for trial in full_trials(study)] == [0, 1]
    best = best_full_trial(study)
    assert best is not None
    assert best.number == 0


def test_all_trials_are_compared_by_the_first_fold_and_outliers_are_clipped() -> None:
    study = optuna.create_study()
    errors = [1.0, 1.1, 1.2, 1.3, 1e9]
    for error in errors:
        study.add_trial(ended(5.0, error))
    study.add_trial(ended(0.0, None))  # got through no fold
    values = [trial.value for trial in first_fold_study(study).trials]
    assert values == pytest.approx([*errors[:-1], 1.3 + 3 * 0.2])
    assert [trial.params for trial in first_fold_study(study).trials] == [{"x": 5.0}] * 5


def test_a_trial_without_blocks_to_compare_with_is_worth_its_mean() -> None:
    study = optuna.create_study()
    assert expected_error(study, [1.0, 3.0]) == 2.0
    study.add_trial(ended(1.0, 1.0))  # not run by tune
    assert len(excess_errors(study, [1.0], best_full_trial(study))) == 0


def test_optuna_is_quiet_inside_and_as_before_after() -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    with quiet():
        assert optuna.logging.get_verbosity() == optuna.logging.WARNING
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
