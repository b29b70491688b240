"""A study of one table, shared by any number of processes; every trial ends once."""

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

from ehrmeta.errors import Remedy, StudyError
from ehrmeta.tuning.comparison import REASON, quiet
from ehrmeta.tuning.storage import Locks, open_storage

_TURN = 0
_MOST_TRIES = 3  # of a trial whose worker is lost: the trial itself may be the cause
_WAIT = 0.5  # seconds between looks at the trials of other workers


@dataclass
class SharedStudy:
    """A study and the locks under which workers share it.

    Parameters
    ----------
    study : optuna.Study
    storage : BaseStorage
    locks : Locks
    exhausted : bool
        A sampler of a finite grid has tried it all.
    """

    study: optuna.Study
    storage: BaseStorage
    locks: Locks
    exhausted: bool = False

    def run(
        self,
        objective: Callable[[Trial], Sequence[float]],
        *,
        n_trials: int,
        timeout: float | None = None,
        sampler: Callable[[int], BaseSampler] | None = None,
        callback: Callable[[optuna.Study, FrozenTrial], None] | None = None,
    ) -> None:
        """Work until the study has `n_trials` trials that ended well, whoever ran them.

        Parameters
        ----------
        objective : callable
        n_trials : int
            Of the whole study, those of other workers and of earlier runs included.
        timeout : float, optional
            Seconds after which this worker starts no further trial.
        sampler : callable, optional
            Trial number -> sampler: what a trial draws depends on the study's seed and history,
            not on which worker draws it.
        callback : callable, optional
            Called with study and trial after every trial of this worker.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while not self.exhausted and (end is None or time.monotonic() < end):
            trial = self._next(n_trials, sampler)
            if trial is None:
                if not self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                    return
                time.sleep(_WAIT)  # a trial that loses its worker is run here
                continue
            self._work_on(trial, objective)
            if callback is not None:
                callback(self.study, self.study.get_trials(deepcopy=False)[trial.number])

    def close(self) -> None:
        """Give connections back; the study can still be read."""
        self.locks.close()
        if isinstance(self.storage, RDBStorage):
            self.storage.remove_session()
            self.storage.engine.dispose()

    def _next(self, n_trials: int, sampler: Callable[[int], BaseSampler] | None) -> Trial | None:
        """The next trial, with its lock held; None where enough have ended or are running."""
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

    def _work_on(self, trial: Trial, objective: Callable[[Trial], Sequence[float]]) -> None:
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
        """End a trial; a sampler of a finite grid raises an error when it has tried it all."""
        try:
            self.study.tell(trial, **outcome)
        except RuntimeError:
            if not isinstance(self.study.sampler, BruteForceSampler | GridSampler):
                raise
            self.exhausted = True

    def _requeue_lost(self) -> None:
        """Queue every trial whose worker is gone again, under its number and with its parameters.

        The turn is held, so no trial starts or changes hands meanwhile. Each is queued by one
        write: a worker that is killed here neither loses nor doubles a trial.
        """
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not self.locks.acquire(trial.number + 1, wait=False):
                continue
            try:
                trial_id = trial._trial_id
                now = self.storage.get_trial(trial_id)
                if now.state != TrialState.RUNNING:  # it has ended meanwhile
                    continue
                tries = int(now.user_attrs.get("tries", 1))
                if tries < _MOST_TRIES:
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
    """Open or create a study; one in which all trials failed may become one for something else.

    Parameters
    ----------
    storage : str, Path or None
        As in `open_storage`.
    study_name : str
    made_for : mapping of str to str
        What trials must share to be comparable, as digests by name: data, folds, model.
    measures, directions : sequence of str
        What is optimised: ``"minimize"`` or ``"maximize"`` each.
    pruner : BasePruner, optional
    notes : mapping of str to str, optional
        Texts to keep with a new study.

    Raises
    ------
    StudyError
        The storage cannot be reached, or the study is about something else.
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
                    f"study '{study_name}' was made for other {difference}: its trials cannot be "
                    "compared with new ones.",
                    Remedy("other-study", "Pass another study_name, or what it was made for."),
                )
            optuna.delete_study(study_name=study_name, storage=opened)  # in which all trials failed
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
    """What a study was made for that differs from what is wanted, if anything."""
    for name, value in wanted.items():
        there = study.user_attrs.get(name)
        if there != value:
            return f"{name} ({there} there, {value} here)" if name == "measures" else name
    return None


def recall(storage: str | Path, study_name: str, note: str) -> str | None:
    """A note kept with a study, if it has one.

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
            f"there is no study '{study_name}' in that storage, which has: {names}."
        ) from error
    finally:
        locks.close()
    return None if text is None else str(text)


def seeded_tpe(seed: int) -> Callable[[int], BaseSampler]:
    """A sampler per trial number, so that a study that is stopped and resumed goes on alike."""

    def of_trial(number: int) -> BaseSampler:
        with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
            # constant_liar: running trials count as bad, so that no worker repeats them
            return TPESampler(seed=(seed * 1_000_003 + number) % 2**32, constant_liar=True)

    return of_trial
