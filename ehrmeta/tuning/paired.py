"""Giving up a setting that is worse than the best one on the same held-out patients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from optuna import Study
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial
from scipy.stats import wilcoxon

from ehrmeta.tuning.compared import BLOCKS, best_in_full

__all__ = ["PairedPruner", "error_in_full", "worse_by"]


class PairedPruner(BasePruner):
    """Wilcoxon's signed-rank test over the blocks of patients that both trials were judged on.

    Optuna's own keeps a trial whose error so far is below the best trial's error in full, which in
    easy first folds is almost every trial. Here both count on the same blocks only.

    Parameters
    ----------
    p_threshold : float
        A trial is given up below it, where it is also worse on average.
    """

    def __init__(self, p_threshold: float = 0.1) -> None:
        self.p_threshold = p_threshold

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial is worse than the best one that was judged in full."""
        worse = worse_by(study, trial.user_attrs.get(BLOCKS, ()), best_in_full(study))
        if not worse.sum() > 0:
            return False
        test = wilcoxon(worse, alternative="greater", zero_method="zsplit")
        return bool(test.pvalue < self.p_threshold)


def worse_by(
    study: Study, errors: Sequence[float], best: FrozenTrial | None
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
    theirs = [] if best is None else best.user_attrs.get(BLOCKS, [])
    if len(theirs) < len(errors):
        return np.empty(0)
    sign = 1.0 if study.direction.name == "MINIMIZE" else -1.0
    return sign * np.subtract(errors, theirs[: len(errors)])


def error_in_full(study: Study, errors: Sequence[float]) -> float:
    """What the error over all blocks will be, from the blocks that were judged.

    The best trial's error in full, and how much worse this one was on the same blocks: that one
    fold is harder than the others drops out. It is never below the best trial's.
    """
    best = best_in_full(study)
    worse = worse_by(study, errors, best)
    if best is None or not len(worse):
        return float(np.mean(errors))
    sign = 1.0 if study.direction.name == "MINIMIZE" else -1.0
    return float(best.values[0] + sign * max(worse.mean(), 0.0))
