"""Hyper-parameter search with Optuna by the k-shot error on held-out patients."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, clone

from ehrmeta.errors import DataError, Remedy, StudyError
from ehrmeta.estimators._base import TaskEstimator
from ehrmeta.estimators.inputs import Inputs
from ehrmeta.tuning.comparison import REASON, best_full_trial
from ehrmeta.tuning.objective import Fold, Objective, Rows, Scoring, read_folds, read_scoring
from ehrmeta.tuning.space import Dimension, Space, Suggest, read_space, suggested

if TYPE_CHECKING:
    import optuna
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

DEFAULT_STORAGE = "ehrmeta-studies.db"
# parameters that do not affect the results
_IRRELEVANT = {"device": "auto", "verbose": None, "callbacks": (), "chunk_size": None}


@dataclass(frozen=True)
class Tuned:
    """Result of a hyper-parameter search.

    Parameters
    ----------
    model : estimator
        Estimator with the best parameters; fitted to all rows if `refit`.
    params : dict
        Best parameters, by their names in the estimator.
    value : float
        Cross-validated error or score of the best parameters, for the first objective.
    study : optuna.Study
        All trials.
    """

    model: Any
    params: dict[str, Any]
    value: float
    study: optuna.Study


def tune(
    estimator: TaskEstimator,
    X: Any,
    y: Any,
    *,
    groups: Any = None,
    time: Any = None,
    n_trials: int,
    timeout: float | None = None,
    space: Space | None = None,
    sampler: BaseSampler | None = None,
    pruner: BasePruner | Literal[False] | None = None,
    storage: str | Path | None = None,
    study_name: str | None = None,
    scoring: Scoring = None,
    cv: Any = 5,
    refit: bool = True,
    random_state: int = 0,
    callback: Callable[[optuna.Study, FrozenTrial], None] | None = None,
    notes: Mapping[str, str] | None = None,
) -> Tuned:
    """Search the hyper-parameters of an estimator by its k-shot error on held-out patients.

    Every trial is evaluated in cross-validation by patient: the held-out patients of a fold are
    adapted to their first rows and scored on their later ones, in blocks of patients. A trial that
    is worse than the best one on the same blocks is stopped before the next fold is trained, as
    is a trial that diverges.

    Parameters
    ----------
    estimator : TaskEstimator
        Such as `MetaRegressor`; parameters that are not searched keep their values. Its
        `score_shots` are the numbers k of rows to adapt to.
    X, y, groups, time
        As in `fit`.
    n_trials : int
        Number of trials of the whole study, including those of earlier calls and other processes.
    timeout : float, optional
        Seconds after which no further trial is started.
    space : sequence, mapping or callable, optional
        Names of parameters, ranges by name (see `read_space`), or an Optuna-style function of the
        trial that returns parameters. By default every parameter with a declared range.
    sampler : optuna.samplers.BaseSampler, optional
        By default TPE, seeded with `random_state` and the number of the trial. One worker then
        gives the same trials for the same seed, even if the study was interrupted.
    pruner : optuna.pruners.BasePruner, optional
        Called after every fold but the last. By default a Wilcoxon test against the best trial on
        the same blocks of patients. Pruners other than Wilcoxon's get the mean so far. With False,
        or several objectives, every trial is evaluated on all folds.
    storage : str or Path, optional
        Where the study is stored; see `open_storage`. By default, a study with a name is stored in
        the file ehrmeta-studies.db in the working directory, and one without a name in memory.
    study_name : str, optional
        A study of this name is resumed, and shared with other processes on the same storage.
    scoring : str, callable, or sequence of them, optional
        ``"rmse_macro"`` (default for regressors), ``"rmse_task"``, ``"rmse_pooled"``,
        ``"mae_macro"``, ``"log_loss"`` (default for classifiers), ``"interval_error"``
        (calibration) or ``"adapt_ms"`` (milliseconds per task), all minimised; or a scorer
        ``(model, X, y, *, groups, time)`` to maximise.
    cv : int or splitter
        Folds by patient.
    refit : bool
        Fit the best setting to all rows.
    random_state : int
        Seed of the sampler, and of the estimator if its own `random_state` is None.
    callback : callable, optional
        Called with study and trial after every trial of this process.
    notes : mapping of str to str, optional
        Texts to store with a new study. Of the rows, a study stores only a digest.

    Returns
    -------
    Tuned

    Raises
    ------
    DataError
        The space, the scoring or the rows cannot be used.
    StudyError
        The storage cannot be reached, the study was made for other data or other parameters, or
        no trial succeeded.

    Examples
    --------
    >>> from ehrmeta import MAML, MetaRegressor, make_sinusoid, tune
    >>> X, y, groups = make_sinusoid(n_tasks=40, n_points=8, random_state=0)
    >>> model = MetaRegressor(MAML(), max_steps=5, random_state=0)
    >>> space = {"algorithm__inner_lr": (0.01, 0.3), "algorithm__inner_steps": [1, 2]}
    >>> tuned = tune(model, X, y, groups=groups, n_trials=2, space=space, cv=2)
    >>> sorted(tuned.params)
    ['algorithm__inner_lr', 'algorithm__inner_steps']
    """
    _check(estimator, n_trials, timeout, study_name, random_state)
    import optuna

    from ehrmeta.tuning.study import PairedPruner, open_study, seeded_tpe

    if not isinstance(sampler, optuna.samplers.BaseSampler | None):
        raise DataError(f"sampler must be one of optuna.samplers, got {sampler!r}.")
    pruner = PairedPruner() if pruner is None else pruner
    if not (pruner is False or isinstance(pruner, optuna.pruners.BasePruner)):
        raise DataError(f"pruner must be one of optuna.pruners, or False, got {pruner!r}.")
    model = clone(estimator)
    if "random_state" in model.get_params(deep=False) and model.random_state is None:
        model.set_params(random_state=random_state)
    searched = space if callable(space) else read_space(model, space)
    measures, directions = read_scoring(scoring, model)
    inputs = model.read_table(X, y, groups=groups, time=time)
    data_digest = _data_digest(inputs)
    if inputs.groups is None:
        raise DataError("tuning needs groups: pass the patient (task) of every row as groups=.")
    rows = Rows(X, y, groups, time, inputs.tasks().codes)
    folds = read_folds(rows, cv)
    if storage is None and study_name is not None:
        storage = DEFAULT_STORAGE
    digests = {"data": data_digest, "folds": _folds_digest(folds)}
    shared = open_study(
        storage,
        study_name or "unnamed",
        made_for=digests | {"model": _model_digest(model)},
        measures=list(measures),
        directions=directions,
        pruner=pruner or optuna.pruners.NopPruner(),
        notes=notes,
    )
    by_block = isinstance(pruner, optuna.pruners.WilcoxonPruner)
    paired = by_block or isinstance(pruner, PairedPruner)
    objective = Objective(model, searched, folds, measures, paired=paired, by_block=by_block)
    try:
        for trial in shared.study.get_trials(deepcopy=False):
            if "folds" in trial.user_attrs and trial.state.name != "FAIL":
                _replayed(searched, trial, clone(model))  # raises if the space differs
        shared.run(
            objective,
            n_trials=n_trials,
            timeout=timeout,
            sampler=seeded_tpe(random_state) if sampler is None else lambda number: sampler,
            callback=callback,
        )
    finally:
        shared.close()
    best = best_trial(shared.study)
    params = _replayed(searched, best, model)
    if refit:
        model.fit(X, y, **rows.known())
    return Tuned(model, params, best.values[0], shared.study)


def best_trial(study: optuna.Study) -> FrozenTrial:
    """The best trial by the first objective.

    Raises
    ------
    StudyError
        No trial succeeded.
    """
    best = best_full_trial(study)
    if best is not None:
        return best
    trials = study.get_trials(deepcopy=False)
    if not trials:
        raise StudyError("no trial was started within the timeout. Increase it.")
    reasons = sorted({str(t.user_attrs.get(REASON, "not finished")).rstrip(".") for t in trials})
    raise StudyError(
        f"none of {len(trials)} trials succeeded: {'; '.join(reasons[:3])}. Narrow the ranges "
        "(lower rates), or run more trials."
    )


def _check(
    estimator: Any, n_trials: int, timeout: float | None, study_name: str | None, random_state: int
) -> None:
    if not isinstance(estimator, TaskEstimator):
        raise DataError(
            f"tune needs a task estimator such as MetaRegressor, got {type(estimator).__name__}."
        )
    for name, value, least in (("n_trials", n_trials, 1), ("random_state", random_state, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise DataError(f"{name} must be a whole number, {least} or more, got {value!r}.")
    if timeout is not None and not (isinstance(timeout, Real) and timeout > 0):
        raise DataError(f"timeout must be a number of seconds above 0, got {timeout!r}.")
    if not isinstance(study_name, str | None):
        raise DataError(f"study_name must be text, got {study_name!r}.")


def _data_digest(inputs: Inputs) -> str:
    """SHA-256 of features, outcome, times and task numbers, without task ids."""
    parts = [*sorted(inputs.columns.items()), ("outcome", inputs.outcome())]
    parts.append(("tasks", inputs.tasks().codes))
    if inputs.time is not None:
        parts.append(("time", inputs.time))
    digest = hashlib.sha256()
    for name, values in parts:
        digest.update(f"{name} {len(values)};".encode() + _as_bytes(values))
    return digest.hexdigest()


def _folds_digest(folds: Sequence[Fold]) -> str:
    """SHA-256 of the held-out patients of each fold, and of their blocks."""
    digest = hashlib.sha256()
    for fold in folds:
        digest.update(_as_bytes(fold.test.tasks) + b";" + _as_bytes(fold.blocks) + b";")
    return digest.hexdigest()


def _model_digest(estimator: BaseEstimator) -> str:
    """SHA-256 of those parameters of an estimator that affect its results."""
    model = clone(estimator)
    known = model.get_params(deep=False)
    model.set_params(**{name: value for name, value in _IRRELEVANT.items() if name in known})
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(model.get_params(deep=True)))  # memory addresses
    return hashlib.sha256(text.encode()).hexdigest()


def _as_bytes(values: npt.NDArray[Any]) -> bytes:
    array = np.asarray(values)
    if array.dtype == object:
        return "\x1f".join(map(str, array)).encode()
    return np.ascontiguousarray(array).tobytes()


def _replayed(
    space: Sequence[Dimension] | Suggest, trial: FrozenTrial, model: Any
) -> dict[str, Any]:
    """Parameters that a trial drew from the space; they are set on `model`.

    Raises
    ------
    StudyError
        The space has other parameters than the trial, or other kinds of ranges.
    """
    from optuna.distributions import check_distribution_compatibility
    from optuna.trial import FixedTrial

    again = FixedTrial(trial.params, number=trial.number)
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            # Optuna warns if a range is narrower now
            values = suggested(space, cast("Any", again), model)
        if again.params.keys() != trial.params.keys():
            raise ValueError
        for name, drawn in again.distributions.items():
            check_distribution_compatibility(trial.distributions[name], drawn)
    except DataError:
        raise
    except ValueError as error:
        raise StudyError(
            f"trial {trial.number} of the study searched {', '.join(trial.params)}, but this space "
            "has other parameters or choices. Only the ends of ranges may differ.",
            Remedy("other-study", "Pass another study_name, or the space the study was made for."),
        ) from error
    return values
