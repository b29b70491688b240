"""Optuna studies shared by several processes, and their pruner and sampler."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, BruteForceSampler, GridSampler, TPESampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from scipy.stats import wilcoxon

from ehrmeta.errors import Remedy, StudyError
from ehrmeta.tuning.comparison import BLOCKS, REASON, best_full_trial, excess_errors, quiet
from ehrmeta.tuning.storage import Locks, open_storage

_TURN = 0  # number of the lock for choosing the next trial
_MAX_TRIES = 3  # of a trial whose worker is lost: the trial itself may be the cause
_WAIT = 0.5  # seconds between checks of the trials of other workers


class PairedPruner(BasePruner):
    """Pruner by Wilcoxon's signed-rank test against the best trial, over the blocks that both have.

    Optuna's Wilcoxon pruner never stops a trial whose error so far is below the best trial's error
    over all folds. If the first folds are easy, this is almost every trial.

    Parameters
    ----------
    p_threshold : float
        A trial with a smaller p value that is also worse on average is stopped.
    """

    def __init__(self, p_threshold: float = 0.1) -> None:
        self.p_threshold = p_threshold

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial is worse than the best one of those evaluated on all folds."""
        excess = excess_errors(study, trial.user_attrs.get(BLOCKS, ()), best_full_trial(study))
        if not excess.sum() > 0:
            return False
        test = wilcoxon(excess, alternative="greater", zero_method="zsplit")
        return bool(test.pvalue < self.p_threshold)


@dataclass
class SharedStudy:
    """A study and the locks with which workers share it."""

    study: optuna.Study
    storage: BaseStorage
    locks: Locks
    exhausted: bool = False  # whether the sampler of a finite grid has tried every point

    def run(
        self,
        objective: Callable[[Trial], Sequence[float]],
        *,
        n_trials: int,
        timeout: float | None = None,
        sampler: Callable[[int], BaseSampler] | None = None,
        callback: Callable[[optuna.Study, FrozenTrial], None] | None = None,
    ) -> None:
        """Run trials until the study has `n_trials` that did not fail, over all its workers.

        `n_trials`, `timeout` and `callback` are those of `tune`. `sampler` maps the number of a
        trial to its sampler, so that the values drawn do not depend on the worker.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while not self.exhausted and (end is None or time.monotonic() < end):
            trial = self._next(n_trials, sampler)
            if trial is None:
                if not self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                    return
                time.sleep(_WAIT)  # a trial that loses its worker is run again
                continue
            self._evaluate(trial, objective)
            if callback is not None:
                callback(self.study, self.study.get_trials(deepcopy=False)[trial.number])

    def close(self) -> None:
        """Close all connections; the study can still be read."""
        self.locks.close()
        if isinstance(self.storage, RDBStorage):
            self.storage.remove_session()
            self.storage.engine.dispose()

    def _next(self, n_trials: int, sampler: Callable[[int], BaseSampler] | None) -> Trial | None:
        """The next trial, with its lock held; None if enough have ended or are running."""
        self.locks.acquire(_TURN)
        try:
            self._requeue_lost()
            trials = self.study.get_trials(deepcopy=False)
            waiting = [t.number for t in trials if t.state == TrialState.WAITING]
            if not waiting and sum(t.state != TrialState.FAIL for t in trials) >= n_trials:
                return None
            if sampler is not None:
                self.study.sampler = sampler(waiting[0] if waiting else len(trials))
            trial = self.study.ask()
            self.locks.acquire(trial.number + 1)
            return trial
        finally:
            self.locks.release(_TURN)

    def _evaluate(self, trial: Trial, objective: Callable[[Trial], Sequence[float]]) -> None:
        try:
            self._tell(trial, values=list(objective(trial)))
        except optuna.TrialPruned:
            self._tell(trial, state=TrialState.PRUNED)
        except KeyboardInterrupt:  # the next worker runs it with the same parameters
            self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
            raise
        except Exception as error:
            trial.set_user_attr(REASON, type(error).__name__)
            self._tell(trial, state=TrialState.FAIL)
            raise
        finally:
            self.locks.release(trial.number + 1)

    def _tell(self, trial: Trial, **outcome: Any) -> None:
        """End a trial; samplers of a finite grid raise an error after their last point."""
        try:
            self.study.tell(trial, **outcome)
        except RuntimeError:
            if not isinstance(self.study.sampler, BruteForceSampler | GridSampler):
                raise
            self.exhausted = True

    def _requeue_lost(self) -> None:
        """Requeue every trial whose worker is lost, with the same number and parameters.

        The caller holds the lock for choosing trials, so no trial starts meanwhile. Each trial is
        requeued by one write, so that none is lost or repeated if this worker is killed here.
        """
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not self.locks.acquire(trial.number + 1, wait=False):
                continue
            try:
                trial_id = trial._trial_id
                now = self.storage.get_trial(trial_id)
                if now.state != TrialState.RUNNING:  # ended meanwhile
                    continue
                tries = int(now.user_attrs.get("tries", 1))
                if tries < _MAX_TRIES:
                    self.storage.set_trial_user_attr(trial_id, "tries", tries + 1)
                    self.storage.set_trial_state_values(trial_id, TrialState.WAITING)
                else:
                    reason = f"its worker was lost {tries} times"
                    self.storage.set_trial_user_attr(trial_id, REASON, reason)
                    self.storage.set_trial_state_values(trial_id, TrialState.FAIL)
            finally:
                self.locks.release(trial.number + 1)


def open_study(
    storage: str | Path | None,
    study_name: str,
    *,
    made_for: Mapping[str, str],
    measures: Sequence[str],
    directions: Sequence[Literal["minimize", "maximize"]],
    pruner: BasePruner | None,
    notes: Mapping[str, str] | None = None,
) -> SharedStudy:
    """Open or create a study; one that does not fit is replaced if all its trials failed.

    `made_for` holds digests, by name, of what must be equal for trials to be comparable: data,
    folds and model. `notes` are texts to store with a new study.

    Raises
    ------
    StudyError
        The storage cannot be reached, or the study was made for something else.
    """
    opened, locks = open_storage(storage, study_name)
    wanted = {**made_for, "measures": ", ".join(measures)}
    locks.acquire(_TURN)
    try:
        if study_name in optuna.get_all_study_names(opened):
            study = optuna.load_study(storage=opened, study_name=study_name, pruner=pruner)
            difference = _difference(study, wanted)
            if difference is None:
                return SharedStudy(study, opened, locks)
            trials = study.get_trials(deepcopy=False)
            if not trials or any(trial.state != TrialState.FAIL for trial in trials):
                raise StudyError(
                    f"study '{study_name}' was made for other {difference}, so its trials cannot "
                    "be compared with new ones.",
                    Remedy(
                        "other-study",
                        "Pass another study_name, or the data and settings of the study.",
                    ),
                )
            optuna.delete_study(study_name=study_name, storage=opened)  # all its trials failed
        with quiet():
            study = optuna.create_study(
                storage=opened, study_name=study_name, directions=list(directions), pruner=pruner
            )
        for name, value in {**(notes or {}), **wanted}.items():
            study.set_user_attr(name, value)
        with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
            study.set_metric_names(list(measures))
    finally:
        locks.release(_TURN)
    return SharedStudy(study, opened, locks)


def _difference(study: optuna.Study, wanted: Mapping[str, str]) -> str | None:
    """First property in which a stored study differs from the requested one, if any."""
    for name, value in wanted.items():
        stored = study.user_attrs.get(name)
        if stored != value:
            return f"{name} ({stored} there, {value} here)" if name == "measures" else name
    return None


def recall(storage: str | Path, study_name: str, note: str) -> str | None:
    """A note stored with a study, or None.

    Raises
    ------
    StudyError
        There is no such study.
    """
    opened, locks = open_storage(storage, study_name, create=False)
    try:
        text = optuna.load_study(storage=opened, study_name=study_name).user_attrs.get(note)
    except KeyError as error:
        names = ", ".join(optuna.get_all_study_names(opened)) or "none"
        raise StudyError(
            f"there is no study '{study_name}' in that storage. It has: {names}."
        ) from error
    finally:
        locks.close()
    return None if text is None else str(text)


def seeded_tpe(seed: int) -> Callable[[int], BaseSampler]:
    """A TPE sampler for each trial number, so that an interrupted study resumes identically."""

    def of_trial(number: int) -> BaseSampler:
        with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
            # constant_liar: running trials count as bad, so that workers do not repeat them
            return TPESampler(seed=(seed * 1_000_003 + number) % 2**32, constant_liar=True)

    return of_trial
