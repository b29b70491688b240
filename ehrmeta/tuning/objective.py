"""What a trial does: fit and judge one setting, fold by fold, block of patients by block.

A fitted model is judged on held-out tasks by the k-shot protocol: each task is adapted from its
first k rows (k random ones without time) and judged on its later rows, for every k in the model's
`score_shots`. Errors are averaged over k, one number a block of tasks; smaller is better.
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
from ehrmeta.estimators.protocol import adapt_to_rows, k_shot_splits
from ehrmeta.evaluation.metrics import METRICS, task_mean
from ehrmeta.tuning.compared import BLOCKS, FIRST_FOLD, REASON, error_in_full
from ehrmeta.tuning.space import Dimension, Suggest, suggested

if TYPE_CHECKING:
    from optuna.trial import Trial

__all__ = [
    "MEASURES",
    "Fold",
    "Measure",
    "Objective",
    "Rows",
    "Scoring",
    "read_folds",
    "read_rows",
    "read_scoring",
]

Array = npt.NDArray[np.float64]
_BLOCKS = 10  # of a fold, at most: enough for a paired rank test after the first fold
_PATIENTS_EACH = 5  # of a block, at least
_LEVELS = (0.5, 0.8, 0.9, 0.95)
Scorer = Callable[..., float]
Scoring = str | Scorer | Sequence[str | Scorer] | None
Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Rows:
    """Rows of some tasks, as a user passes them.

    Parameters
    ----------
    X, y, groups, time
        As `fit` takes them.
    tasks : ndarray, (row,)
        Number of the task of every row.
    """

    X: Any
    y: Any
    groups: Any
    time: Any
    tasks: npt.NDArray[np.int64]

    def take(self, rows: npt.NDArray[np.bool_]) -> Rows:
        """The rows of a mask."""
        return Rows(
            take_rows(self.X, rows),
            np.asarray(self.y)[rows],
            None if self.groups is None else np.asarray(self.groups)[rows],
            None if self.time is None else np.asarray(self.time)[rows],
            self.tasks[rows],
        )

    def known(self) -> dict[str, Any]:
        """Groups and time as keywords, where given."""
        given = {"groups": self.groups, "time": self.time}
        return {name: value for name, value in given.items() if value is not None}


# ``measure(model, rows, blocks)``: model, held-out rows, their block (row,) -> (block,)
Measure = Callable[[Any, Rows, npt.NDArray[np.int64]], Array]


@dataclass(frozen=True)
class _Round:
    """All tasks adapted from k rows each, and the rows to judge them on."""

    adapted: Adapted
    asked: dict[str, Any]
    y: npt.NDArray[Any]
    tasks: npt.NDArray[np.int64]
    blocks: npt.NDArray[np.int64]
    seconds: float


def _rounds(model: Any, rows: Rows, blocks: npt.NDArray[np.int64]) -> Iterator[_Round]:
    inputs = model.fitted_model().read(rows.X, rows.y, groups=rows.groups, time=rows.time)
    tasks, y = inputs.tasks(), inputs.outcome()
    for _, support, query in k_shot_splits(inputs, model.score_shots):
        started = time.perf_counter()
        adapted, asked = adapt_to_rows(model, rows.X, inputs, support, query)
        seconds = time.perf_counter() - started
        yield _Round(adapted, asked, y[query], tasks.codes[query], blocks[query], seconds)


def _by_block(
    judge: Callable[[_Round], Callable[[npt.NDArray[np.bool_]], float]],
) -> Measure:
    """A measure from a function that judges a round: block's rows (row,) -> error."""

    def measure(model: Any, rows: Rows, blocks: npt.NDArray[np.int64]) -> Array:
        n_blocks = int(blocks.max()) + 1
        total, count = np.zeros(n_blocks), np.zeros(n_blocks)
        for found in _rounds(model, rows, blocks):
            error = judge(found)
            for block in np.unique(found.blocks):
                total[block] += error(found.blocks == block)
                count[block] += 1
        with np.errstate(invalid="ignore"):
            return np.divide(total, count)

    return measure


def _error(metric: str) -> Measure:
    def judge(found: _Round) -> Callable[[npt.NDArray[np.bool_]], float]:
        predicted = _finite(found.adapted.predict(**found.asked))
        return lambda at: task_mean(metric, found.y[at], predicted[at], found.tasks[at]).value()

    return _by_block(judge)


def _log_loss(found: _Round) -> Callable[[npt.NDArray[np.bool_]], float]:
    """Mean over tasks of the log loss."""
    p = _finite(found.adapted.predict_proba(**found.asked))
    codes = np.searchsorted(found.adapted.classes_, found.y)
    loss = -np.log(np.maximum(p[np.arange(len(codes)), codes], np.finfo(np.float64).tiny))
    return lambda at: _mean_over_tasks(loss[at], found.tasks[at])


def _interval_error(found: _Round) -> Callable[[npt.NDArray[np.bool_]], float]:
    """Distance between confidence level and share of outcomes covered, averaged over levels."""
    intervals = [
        found.adapted.predict_interval(**found.asked, confidence_level=level) for level in _LEVELS
    ]
    inside = [(found.y >= low) & (found.y <= high) for low, high in (i.T for i in intervals)]

    def error(at: npt.NDArray[np.bool_]) -> float:
        shares = [_mean_over_tasks(held[at].astype(float), found.tasks[at]) for held in inside]
        return float(np.mean(np.abs(np.subtract(shares, _LEVELS))))

    return error


def _adapt_ms(found: _Round) -> Callable[[npt.NDArray[np.bool_]], float]:
    """Milliseconds to adapt a task, of all tasks adapted in one call."""
    each = 1e3 * found.seconds / len(np.unique(found.tasks))
    return lambda at: each


def _finite(predicted: Array) -> Array:
    bad = int(np.count_nonzero(~np.isfinite(predicted)))
    if bad:
        raise DivergenceError(
            f"{bad} of {predicted.size} predictions for held-out tasks are not finite."
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


@dataclass(frozen=True)
class Fold:
    """Training rows, held-out rows and the blocks of patients that these are judged in.

    Parameters
    ----------
    train, test : Rows
    blocks : ndarray, (test row,)
        0, 1, ... by patient, at random.
    """

    train: Rows
    test: Rows
    blocks: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Objective:
    """The k-shot error of a setting in cross-validation by patient.

    Training is what a trial costs, and there is one training a fold. So a setting that is worse
    than the best one on the same patients, block by block, is given up before the next fold is
    trained.

    Parameters
    ----------
    estimator : estimator
    space : sequence of Dimension, or Optuna-style callable
    folds : sequence of Fold
    measures : mapping of str to Measure
        One objective each.
    paired : bool
        The pruner compares a trial with the best one: what is given up still gets an error.
    by_block : bool
        Report every block's own error, which Optuna's Wilcoxon pruner wants, in place of the mean
        so far, which median and Hyperband pruning want.
    """

    estimator: Any
    space: Sequence[Dimension] | Suggest
    folds: Sequence[Fold]
    measures: Mapping[str, Measure]
    paired: bool = True
    by_block: bool = False

    def __call__(self, trial: Trial) -> list[float]:
        """One error per measure, the mean over all blocks.

        A trial that is given up by a test against the best one returns what its error would be in
        full, which tells the sampler more than that there is none. Its attribute "reason" tells it
        from one that was judged in full.

        Raises
        ------
        optuna.TrialPruned
            Another pruner gives the setting up, or its training diverges.
        """
        import optuna

        model = clone(self.estimator)
        if getattr(model, "verbose", False) is None:  # a bar for every fold is one too many
            model.set_params(verbose=False)
        suggested(self.space, trial, model)
        of_blocks: list[Array] = []  # (measure,) each
        for number, fold in enumerate(self.folds, start=1):
            trial.set_user_attr("folds", number)
            try:
                errors = self._judged(model, fold)
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
                self._report(trial, of_blocks)
            blocks = [float(of_block[0]) for of_block in of_blocks]
            trial.set_user_attr(BLOCKS, blocks)
            if number < len(self.folds) and trial.should_prune():
                trial.set_user_attr(
                    REASON, f"worse than others, in fold {number} of {len(self.folds)}"
                )
                if not self.paired:
                    raise optuna.TrialPruned
                return [error_in_full(trial.study, blocks)]
        return [float(mean) for mean in np.mean(of_blocks, axis=0)]

    def _judged(self, model: Any, fold: Fold) -> Array:
        """Errors of a model fitted to the fold, (measure, block)."""
        fitted = clone(model)
        with warnings.catch_warnings():  # what they say of the table was said when it was read
            warnings.simplefilter("ignore", DataWarning)
            fitted.fit(fold.train.X, fold.train.y, **fold.train.known())
            errors = np.array(
                [measure(fitted, fold.test, fold.blocks) for measure in self.measures.values()]
            )
        if np.isnan(errors).any():
            raise DataError(
                f"some blocks of held-out patients have no row after the first "
                f"{min(fitted.score_shots)}.",
                Remedy("fewer-shots", "Lower score_shots, or leave out patients with few rows."),
            )
        if not np.isfinite(errors).all():
            raise DivergenceError("the error on held-out patients is not finite.")
        return errors

    def _report(self, trial: Trial, of_blocks: Sequence[Array]) -> None:
        value = of_blocks[-1][0] if self.by_block else np.mean(of_blocks)
        with warnings.catch_warnings():  # of a step that a lost worker has reported before
            warnings.simplefilter("ignore")
            trial.report(float(value), step=len(of_blocks) - 1)


def read_rows(estimator: Any, X: Any, y: Any, groups: Any, time: Any) -> Rows:
    """The rows of a study, checked as `fit` checks them.

    Raises
    ------
    DataError
        They cannot be read, or belong to one task.
    """
    inputs = estimator.read_table(X, y, groups=groups, time=time)
    inputs.outcome()
    if inputs.groups is None:
        raise DataError("tuning needs groups: the patient (task) of every row.")
    return Rows(X, y, groups, time, inputs.tasks().codes)


def read_folds(rows: Rows, cv: Any) -> list[Fold]:
    """Folds by patient, and their blocks.

    Parameters
    ----------
    cv : int or splitter
        A number of folds, or anything with ``split(X, y, groups)``.

    Raises
    ------
    GroupError
        There are fewer patients than folds.
    DataError
        `cv` is neither, or puts a patient into training and held-out rows at once.
    """
    splitter = PatientKFold(int(cv), random_state=0) if isinstance(cv, int | np.integer) else cv
    if isinstance(cv, str) or not hasattr(splitter, "split"):
        raise DataError(f"cv must be a number of folds or a splitter, got {cv!r}.")
    folds = []
    for train, test in splitter.split(rows.X, rows.y, rows.tasks):
        masks = np.zeros((2, len(rows.tasks)), bool)
        masks[0, train], masks[1, test] = True, True
        learned, held_out = rows.take(masks[0]), rows.take(masks[1])
        if len(np.intersect1d(learned.tasks, held_out.tasks)):
            raise DataError(
                "cv puts rows of one patient into training and held-out rows. Use PatientKFold, or "
                "a number of folds."
            )
        patients, codes = np.unique(held_out.tasks, return_inverse=True)
        n_blocks = max(1, min(_BLOCKS, len(patients) // _PATIENTS_EACH))
        order = np.random.default_rng(0).permutation(len(patients))
        blocks = (np.argsort(order) * n_blocks // len(patients))[codes]
        folds.append(Fold(learned, held_out, blocks))
    return folds


def read_scoring(scoring: Scoring, model: Any) -> tuple[Mapping[str, Measure], list[Direction]]:
    """Measures by name, and the direction of each.

    Parameters
    ----------
    scoring : str, callable, sequence of them, or None
        As in `tune`.
    model : estimator
        Whose default is the log loss where it predicts classes, the error otherwise.

    Raises
    ------
    DataError
        A score is not known, or named twice.
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
        raise DataError("scoring must name at least one score, and each once.")
    return measures, directions


def _scored_by(scorer: Scorer) -> Measure:
    """A scikit-learn scorer, called once a block."""

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
