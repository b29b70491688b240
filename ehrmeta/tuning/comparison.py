"""Trials compared with the best one, and all on one scale, those that were given up early too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ehrmeta.errors import StudyError

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


# What a trial keeps in its attributes: its error in every block so far and in the first fold, and
# why it ended early.
BLOCKS, FIRST_FOLD, REASON = "blocks", "first_fold", "reason"


def sign_of(study: optuna.Study) -> int:
    """1 where the (first) objective is minimised, -1 where it is maximised."""
    return 1 if study.directions[0].name == "MINIMIZE" else -1


def in_full(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that were judged on all folds."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.name == "COMPLETE" and REASON not in trial.user_attrs
    ]


def best_in_full(study: optuna.Study) -> FrozenTrial | None:
    """The best trial that was judged on all folds; of several objectives the first one's."""
    sign = sign_of(study)
    return min(in_full(study), key=lambda trial: sign * trial.values[0], default=None)


def worse_by(
    study: optuna.Study, errors: Sequence[float], best: FrozenTrial | None
) -> npt.NDArray[np.float64]:
    """How much worse than another trial, block by block; empty where that one has no blocks.

    Parameters
    ----------
    study : optuna.Study
    errors : sequence of float
        Of the first blocks.
    best : FrozenTrial, optional
        Judged in full; one that was not judged by `tune` has no blocks.
    """
    of_best = [] if best is None else best.user_attrs.get(BLOCKS, [])
    if len(of_best) < len(errors):
        return np.empty(0)
    return sign_of(study) * np.subtract(errors, of_best[: len(errors)], dtype=np.float64)


def error_in_full(study: optuna.Study, errors: Sequence[float]) -> float:
    """The expected error over all blocks, from the blocks that were judged.

    The best trial's error in full, and how much worse this one was on the same blocks: that one
    fold is harder than the others drops out. It is never below the best trial's.
    """
    best = best_in_full(study)
    worse = worse_by(study, errors, best)
    if best is None or not len(worse):
        return float(np.mean(errors))
    return float(best.values[0] + sign_of(study) * max(worse.mean(), 0.0))


def compared(study: optuna.Study) -> optuna.Study:
    """The trials as if judged by the first fold alone, in a study in memory.

    A trial that was given up early has no error in full, and without it just the bad settings would
    be missing. The first fold judges all alike. Outliers (more than three times the interquartile
    range outside it) are clipped to that distance, so that none hides the others.

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


@contextmanager
def quiet() -> Iterator[None]:
    """Let Optuna log no more than warnings."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
