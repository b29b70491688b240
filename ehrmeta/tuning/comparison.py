"""Comparison of trials: with the best trial block by block, and by errors in the first fold."""

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

# Attributes of a trial: its error in every block so far and in the first fold, and why it ended.
BLOCKS, FIRST_FOLD, REASON = "blocks", "first_fold", "reason"


def sign_of(study: optuna.Study) -> int:
    """1 where the (first) objective is minimised, -1 where it is maximised."""
    return 1 if study.directions[0].name == "MINIMIZE" else -1


def full_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that were evaluated on all folds."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.name == "COMPLETE" and REASON not in trial.user_attrs
    ]


def best_full_trial(study: optuna.Study) -> FrozenTrial | None:
    """Best trial of those evaluated on all folds, by the first objective."""
    sign = sign_of(study)
    return min(full_trials(study), key=lambda trial: sign * trial.values[0], default=None)


def excess_errors(
    study: optuna.Study, errors: Sequence[float], best: FrozenTrial | None
) -> npt.NDArray[np.float64]:
    """Errors in the first blocks minus those of the best trial; empty if it has fewer blocks."""
    of_best = [] if best is None else best.user_attrs.get(BLOCKS, [])
    if len(of_best) < len(errors):
        return np.empty(0)
    return sign_of(study) * np.subtract(errors, of_best[: len(errors)], dtype=np.float64)


def expected_error(study: optuna.Study, errors: Sequence[float]) -> float:
    """Estimated error over all blocks of a trial that was evaluated on the first blocks only.

    The estimate is the best trial's error plus the mean excess of `errors` over the best trial on
    the same blocks, so it does not depend on how hard these blocks are. It is never better than the
    best trial's error.
    """
    best = best_full_trial(study)
    excess = excess_errors(study, errors, best)
    if best is None or not len(excess):
        return float(np.mean(errors))
    return float(best.values[0] + sign_of(study) * max(excess.mean(), 0.0))


def first_fold_study(study: optuna.Study) -> optuna.Study:
    """The trials with their errors in the first fold, as a study in memory.

    Trials that were stopped early have this error too. Outliers are clipped to three interquartile
    ranges beyond the quartiles.

    Raises
    ------
    StudyError
        No trial completed its first fold.
    """
    import optuna

    usable = [
        (trial, trial.user_attrs[FIRST_FOLD])
        for trial in study.get_trials(deepcopy=False)
        if FIRST_FOLD in trial.user_attrs and trial.state.is_finished()
    ]
    if not usable:
        raise StudyError(
            "no trial of the study completed its first fold, so there is nothing to compare. Run "
            "more trials."
        )
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
    """Suppress Optuna's messages below warnings."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
