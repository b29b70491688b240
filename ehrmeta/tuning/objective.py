"""What a trial does: fit and judge one setting, fold by fold, block of patients by block."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from ehrmeta.data import PatientKFold
from ehrmeta.errors import DataError, DataWarning, DivergenceError, Remedy
from ehrmeta.evaluation.metrics import Array
from ehrmeta.tuning.comparison import BLOCKS, FIRST_FOLD, REASON, error_in_full
from ehrmeta.tuning.measures import Measure, Rows
from ehrmeta.tuning.space import Dimension, Suggest, suggested

if TYPE_CHECKING:
    from optuna.trial import Trial


_BLOCKS = 10  # of a fold, at most: enough for a paired rank test after the first fold
_PATIENTS_EACH = 5  # of a block, at least


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
                value = of_block[0] if self.by_block else np.mean(of_blocks)
                with warnings.catch_warnings(action="ignore"):  # a lost worker reported it before
                    trial.report(float(value), step=len(of_blocks) - 1)
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
        with warnings.catch_warnings(action="ignore", category=DataWarning):  # given at reading
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
