"""Objective of a study: cross-validated k-shot errors of one setting, one per block of tasks.

Each held-out task is adapted to its first k rows (k random ones without time) and scored on its
later rows, for every k in the model's `score_shots`. Errors are averaged over k; smaller is better.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.base import clone, is_classifier

from ehrmeta.data import PatientKFold
from ehrmeta.data.columns import take_rows
from ehrmeta.errors import DataError, DataWarning, DivergenceError, Remedy, did_you_mean
from ehrmeta.estimators.adapted import Adapted
from ehrmeta.estimators.k_shot_protocol import adapt_to_rows, k_shot_splits
from ehrmeta.evaluation.metrics import METRICS, Array, task_mean
from ehrmeta.tuning.comparison import BLOCKS, FIRST_FOLD, REASON, expected_error
from ehrmeta.tuning.space import Dimension, Suggest, suggested

_MAX_BLOCKS = 10  # per fold: enough for a paired rank test after the first fold
_MIN_PATIENTS = 5  # per block

if TYPE_CHECKING:
    from optuna.trial import Trial


_LEVELS = (0.5, 0.8, 0.9, 0.95)
Scorer = Callable[..., float]
Scoring = str | Scorer | Sequence[str | Scorer] | None
Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Rows:
    """Rows of some tasks, with the arguments of `fit` as passed by the user."""

    X: Any
    y: Any
    groups: Any
    time: Any
    tasks: npt.NDArray[np.int64]  # number of the task of every row, (row,)

    def take(self, rows: npt.NDArray[np.bool_]) -> Rows:
        """The rows selected by a mask."""
        y, groups, time = (
            None if values is None else np.asarray(values)[rows]
            for values in (self.y, self.groups, self.time)
        )
        return Rows(take_rows(self.X, rows), y, groups, time, self.tasks[rows])

    def known(self) -> dict[str, Any]:
        """Keywords of `fit`: groups and time, if given."""
        given = {"groups": self.groups, "time": self.time}
        return {name: value for name, value in given.items() if value is not None}


# ``measure(model, rows, blocks)``: errors (block,) on held-out rows with block numbers (row,)
Measure = Callable[[Any, Rows, npt.NDArray[np.int64]], Array]


@dataclass(frozen=True)
class _Round:
    """A scoring round: all tasks adapted to k rows each, and their query rows."""

    adapted: Adapted
    query: dict[str, Any]
    y: npt.NDArray[Any]
    tasks: npt.NDArray[np.int64]
    blocks: npt.NDArray[np.int64]
    seconds: float


def _rounds(model: Any, rows: Rows, blocks: npt.NDArray[np.int64]) -> Iterator[_Round]:
    inputs = model.fitted_model().read(rows.X, rows.y, groups=rows.groups, time=rows.time)
    tasks, y = inputs.tasks(), inputs.outcome()
    for _, support, query in k_shot_splits(inputs, model.score_shots):
        started = time.perf_counter()
        adapted, query_rows = adapt_to_rows(model, rows.X, inputs, support, query)
        seconds = time.perf_counter() - started
        yield _Round(adapted, query_rows, y[query], tasks.codes[query], blocks[query], seconds)


def _by_block(score: Callable[[_Round], Callable[[npt.NDArray[np.bool_]], float]]) -> Measure:
    """Measure from ``score(round)``, which returns a function from rows of a block to an error."""

    def measure(model: Any, rows: Rows, blocks: npt.NDArray[np.int64]) -> Array:
        n_blocks = int(blocks.max()) + 1
        total, count = np.zeros(n_blocks), np.zeros(n_blocks)
        for at_k in _rounds(model, rows, blocks):
            error = score(at_k)
            for block in np.unique(at_k.blocks):
                total[block] += error(at_k.blocks == block)
                count[block] += 1
        with np.errstate(invalid="ignore"):
            return np.divide(total, count)

    return measure


def _error(metric: str) -> Measure:
    def score(at_k: _Round) -> Callable[[npt.NDArray[np.bool_]], float]:
        p = _finite(at_k.adapted.predict(**at_k.query))
        return lambda rows: task_mean(metric, at_k.y[rows], p[rows], at_k.tasks[rows]).value()

    return _by_block(score)


def _log_loss(at_k: _Round) -> Callable[[npt.NDArray[np.bool_]], float]:
    """Mean over tasks of the log loss."""
    p = _finite(at_k.adapted.predict_proba(**at_k.query))
    codes = np.searchsorted(at_k.adapted.classes_, at_k.y)
    loss = -np.log(np.maximum(p[np.arange(len(codes)), codes], np.finfo(np.float64).tiny))
    return lambda rows: _mean_over_tasks(loss[rows], at_k.tasks[rows])


def _interval_error(at_k: _Round) -> Callable[[npt.NDArray[np.bool_]], float]:
    """Distance between confidence level and coverage, averaged over levels."""
    intervals = [
        at_k.adapted.predict_interval(**at_k.query, confidence_level=level) for level in _LEVELS
    ]
    inside = [(at_k.y >= low) & (at_k.y <= high) for low, high in (i.T for i in intervals)]

    def error(rows: npt.NDArray[np.bool_]) -> float:
        shares = [_mean_over_tasks(held[rows].astype(float), at_k.tasks[rows]) for held in inside]
        return float(np.mean(np.abs(np.subtract(shares, _LEVELS))))

    return error


def _adapt_ms(at_k: _Round) -> Callable[[npt.NDArray[np.bool_]], float]:
    """Milliseconds per task of adapting all tasks in one call."""
    each = 1e3 * at_k.seconds / len(np.unique(at_k.tasks))
    return lambda rows: each


def _finite(predicted: Array) -> Array:
    bad = int(np.count_nonzero(~np.isfinite(predicted)))
    if bad:
        raise DivergenceError(
            f"{bad} of {predicted.size} predictions for held-out tasks are not finite. Lower the "
            "learning rates."
        )
    return predicted


def _mean_over_tasks(values: Array, tasks: npt.NDArray[np.int64]) -> float:
    counts = np.bincount(tasks)
    means = np.bincount(tasks, values)[counts > 0] / counts[counts > 0]
    return float(means.mean())


MEASURES: Mapping[str, Measure] = {
    **{metric: _error(metric) for metric in METRICS},
    "log_loss": _by_block(_log_loss),
    "interval_error": _by_block(_interval_error),
    "adapt_ms": _by_block(_adapt_ms),
}


def read_scoring(scoring: Scoring, model: Any) -> tuple[Mapping[str, Measure], list[Direction]]:
    """Measures by name, and the direction of each.

    By default, the log loss for a classifier and ``"rmse_macro"`` for a regressor.

    Raises
    ------
    DataError
        A score is unknown, or named twice.
    """
    if scoring is None:
        scoring = "log_loss" if is_classifier(model) else "rmse_macro"
    scores: list[Any] = list(scoring) if isinstance(scoring, list | tuple) else [scoring]
    measures: dict[str, Measure] = {}
    directions: list[Direction] = []
    for score in scores:
        if callable(score):
            measures[getattr(score, "__name__", type(score).__name__)] = _scored_by(score)
            directions.append("maximize")
        elif score in MEASURES:
            measures[score] = MEASURES[score]
            directions.append("minimize")
        else:
            raise DataError(f"unknown scoring {score!r}. {did_you_mean(str(score), MEASURES)}")
    if not scores or len(measures) < len(scores):
        raise DataError("scoring must name at least one score, and name each once.")
    return measures, directions


def _scored_by(scorer: Scorer) -> Measure:
    """A measure from a scikit-learn scorer, called once per block."""

    def measure(model: Any, rows: Rows, blocks: Any) -> Any:
        parts = (rows.take(blocks == block) for block in range(int(blocks.max()) + 1))
        scores = [scorer(model, part.X, part.y, **part.known()) for part in parts]
        wrong = [score for score in scores if not isinstance(score, Real) or np.isnan(score)]
        if wrong:
            raise DataError(
                f"the scorer returned {wrong[0]!r} for a block of held-out patients: it must "
                "return a number."
            )
        return np.array(scores, float)

    return measure


@dataclass(frozen=True)
class Fold:
    """Training rows, and held-out rows with the blocks of patients in which they are scored."""

    train: Rows
    test: Rows
    blocks: npt.NDArray[np.int64]  # 0, 1, ... by patient at random, (test row,)


@dataclass(frozen=True)
class Objective:
    """The k-shot error of a setting in cross-validation by patient.

    The cost of a trial is one training per fold. A setting that is worse than the best one on the
    same blocks of patients is therefore stopped before the next training.

    Parameters
    ----------
    estimator : estimator
    space : sequence of Dimension, or Optuna-style callable
    folds : sequence of Fold
    measures : mapping of str to Measure
        One objective each.
    paired : bool
        Whether the pruner compares a trial with the best one. A stopped trial then gets an
        estimated error.
    by_block : bool
        Report the error of every block, which Optuna's Wilcoxon pruner expects. Otherwise report
        the mean so far, which the median and Hyperband pruners expect.
    """

    estimator: Any
    space: Sequence[Dimension] | Suggest
    folds: Sequence[Fold]
    measures: Mapping[str, Measure]
    paired: bool = True
    by_block: bool = False

    def __call__(self, trial: Trial) -> list[float]:
        """Error of each measure, averaged over all blocks.

        A trial stopped by a test against the best one returns its expected error over all folds,
        which tells the sampler more than a pruned trial. It gets the attribute "reason".

        Raises
        ------
        optuna.TrialPruned
            Another pruner stops the trial, or training diverges.
        """
        import optuna

        model = clone(self.estimator)
        if getattr(model, "verbose", False) is None:  # no progress bar for every fold
            model.set_params(verbose=False)
        suggested(self.space, trial, model)
        of_blocks: list[Array] = []  # (measure,) each
        for number, fold in enumerate(self.folds, start=1):
            trial.set_user_attr("folds", number)
            try:
                errors = self._block_errors(model, fold)
            except DivergenceError as error:
                trial.set_user_attr(REASON, f"diverged in fold {number}: {error.args[0]}")
                raise optuna.TrialPruned(str(error)) from error
            if not of_blocks:
                trial.set_user_attr(FIRST_FOLD, float(errors[0].mean()))
            if len(self.measures) > 1:
                of_blocks += list(errors.T)
                continue
            for of_block in errors.T:
                of_blocks.append(of_block)
                value = of_block[0] if self.by_block else np.mean(of_blocks)
                with warnings.catch_warnings(action="ignore"):  # a lost worker has reported it
                    trial.report(float(value), step=len(of_blocks) - 1)
            blocks = [float(of_block[0]) for of_block in of_blocks]
            trial.set_user_attr(BLOCKS, blocks)
            if number < len(self.folds) and trial.should_prune():
                trial.set_user_attr(
                    REASON, f"worse than others, in fold {number} of {len(self.folds)}"
                )
                if not self.paired:
                    raise optuna.TrialPruned
                return [expected_error(trial.study, blocks)]
        return [float(mean) for mean in np.mean(of_blocks, axis=0)]

    def _block_errors(self, model: Any, fold: Fold) -> Array:
        """Errors of a model fitted to the fold, (measure, block)."""
        fitted = clone(model)
        with warnings.catch_warnings(action="ignore", category=DataWarning):  # given before
            fitted.fit(fold.train.X, fold.train.y, **fold.train.known())
            measures = self.measures.values()
            errors = np.array([measure(fitted, fold.test, fold.blocks) for measure in measures])
        if np.isnan(errors).any():
            raise DataError(
                "in some blocks of held-out patients, nobody has a row after the first "
                f"{min(fitted.score_shots)}.",
                Remedy("fewer-shots", "Lower score_shots, or leave out patients with few rows."),
            )
        if not np.isfinite(errors).all():
            raise DivergenceError(
                "the error on held-out patients is not finite. Lower the learning rates."
            )
        return errors


def read_folds(rows: Rows, cv: Any) -> list[Fold]:
    """Folds by patient, and their blocks, from a number of folds or a splitter.

    Raises
    ------
    GroupError
        There are fewer patients than folds.
    DataError
        `cv` is neither a number nor a splitter, or a patient has both training and held-out rows.
    """
    splitter = PatientKFold(int(cv), random_state=0) if isinstance(cv, int | np.integer) else cv
    if isinstance(cv, str) or not hasattr(splitter, "split"):
        raise DataError(f"cv must be a number of folds or a splitter, got {cv!r}.")
    folds = []
    for train, test in splitter.split(rows.X, rows.y, rows.tasks):
        masks = np.zeros((2, len(rows.tasks)), bool)
        masks[0, train], masks[1, test] = True, True
        training, held_out = rows.take(masks[0]), rows.take(masks[1])
        if len(np.intersect1d(training.tasks, held_out.tasks)):
            raise DataError(
                "cv puts rows of one patient into both training and held-out rows. Use "
                "PatientKFold, or a number of folds."
            )
        patients, codes = np.unique(held_out.tasks, return_inverse=True)
        n_blocks = max(1, min(_MAX_BLOCKS, len(patients) // _MIN_PATIENTS))
        order = np.random.default_rng(0).permutation(len(patients))
        blocks = (np.argsort(order) * n_blocks // len(patients))[codes]
        folds.append(Fold(training, held_out, blocks))
    return folds
