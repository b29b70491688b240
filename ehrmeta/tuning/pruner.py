"""Giving up a setting that is worse than the best one on the same held-out patients."""

from optuna import Study
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial
from scipy.stats import wilcoxon

from ehrmeta.tuning.comparison import BLOCKS, best_in_full, worse_by


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
