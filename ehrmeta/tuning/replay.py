"""A trial of a study put to a search space once more."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, cast

from optuna import Study
from optuna.distributions import check_distribution_compatibility
from optuna.trial import FixedTrial, FrozenTrial
from sklearn.base import clone

from ehrmeta.errors import DataError, StudyError
from ehrmeta.tuning.space import Dimension, Suggest, suggested

__all__ = ["check_same_space", "replayed"]


def replayed(
    space: Sequence[Dimension] | Suggest, trial: FrozenTrial, model: Any
) -> dict[str, Any]:
    """What a trial drew from the space, by parameter of the estimator; `model` is given it.

    Raises
    ------
    StudyError
        The space has other parameters than the trial, or other kinds of them.
    """
    again = FixedTrial(trial.params, number=trial.number)
    try:
        with warnings.catch_warnings():  # a range may have become narrower since
            warnings.simplefilter("ignore", UserWarning)
            values = suggested(space, cast("Any", again), model)
        if again.params.keys() != trial.params.keys():
            raise ValueError
        for name, drawn in again.distributions.items():
            check_distribution_compatibility(trial.distributions[name], drawn)
    except DataError:
        raise
    except ValueError as error:
        raise StudyError(
            f"trial {trial.number} of the study searched {', '.join(trial.params)}: this space has "
            "other parameters or other choices. Pass another study_name, or the space that the "
            "study was made for; only the ends of its ranges may change."
        ) from error
    return values


def check_same_space(study: Study, space: Sequence[Dimension] | Suggest, model: Any) -> None:
    """Refuse a study whose trials searched other parameters than this space has.

    Raises
    ------
    StudyError
        As in `replayed`.
    """
    for trial in study.get_trials(deepcopy=False):
        if "folds" in trial.user_attrs and trial.state.name != "FAIL":
            replayed(space, trial, clone(model))
