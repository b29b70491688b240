"""All trials of a study on one scale, those that were given up early too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ehrmeta.errors import StudyError
from ehrmeta.tuning.quiet import quiet

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

__all__ = ["BLOCKS", "FIRST_FOLD", "REASON", "best_in_full", "compared", "in_full"]

# What a trial keeps in its attributes: its error in every block so far and in the first fold, and
# why it ended early.
BLOCKS, FIRST_FOLD, REASON = "blocks", "first_fold", "reason"


def in_full(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that were judged on all folds."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.name == "COMPLETE" and REASON not in trial.user_attrs
    ]


def best_in_full(study: optuna.Study) -> FrozenTrial | None:
    """The best trial that was judged on all folds; of several objectives the first one's."""
    sign = 1 if study.directions[0].name == "MINIMIZE" else -1
    return min(in_full(study), key=lambda trial: sign * trial.values[0], default=None)


def compared(study: optuna.Study) -> optuna.Study:
    """The trials as if judged by the first fold alone, in a study in memory.

    What was given up early has no error in full, and leaving it out would hide just the settings
    that are bad. The first fold judges them all alike. Errors far off (more than three times the
    spread of the middle half beyond it) count as that far, so that one of them hides no other.

    Raises
    ------
    StudyError
        No trial got through the first fold.
    """
    import optuna

    usable = [
        (trial, trial.user_attrs[FIRST_FOLD])
        for trial in study.get_trials(deepcopy=False)
        if FIRST_FOLD in trial.user_attrs and trial.state.is_finished()
    ]
    if not usable:
        raise StudyError("no trial of the study got through the first fold: nothing to compare.")
    errors = np.array([error for _, error in usable])
    low, high = np.quantile(errors, [0.25, 0.75])
    errors = np.clip(errors, low - 3 * (high - low), high + 3 * (high - low))
    storage = optuna.storages.InMemoryStorage()
    with quiet():
        view_id = storage.create_new_study([study.directions[0]], study.study_name)
    for (trial, _), error in zip(usable, errors, strict=True):
        template = optuna.trial.create_trial(
            params=trial.params, distributions=trial.distributions, value=float(error)
        )
        storage.create_new_trial(view_id, template)
    return optuna.load_study(study_name=study.study_name, storage=storage)
