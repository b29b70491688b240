"""Objective of a study: cross-validated k-shot error of one setting, by block of patients."""

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
from ehrmeta.tuning.comparison import BLOCKS, FIRST_FOLD, REASON, expected_error
from ehrmeta.tuning.measures import Measure, Rows
from ehrmeta.tuning.space import Dimension, Suggest, suggested

if TYPE_CHECKING:
    from optuna.trial import Trial

_MAX_BLOCKS = 10  # per fold: enough for a paired rank test after the first fold
_MIN_PATIENTS = 5  # per block


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
        """One error per measure, the mean over all blocks.

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
