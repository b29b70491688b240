"""Scores that count patients, and the protocols that produce them."""

from ehrmeta.evaluation.bootstrap import Difference, bootstrap_counts, paired_bootstrap
from ehrmeta.evaluation.k_shot import k_shot_curve
from ehrmeta.evaluation.metrics import (
    METRICS,
    interval_coverage,
    mae_macro,
    rmse_macro,
    rmse_pooled,
    rmse_task,
)
from ehrmeta.evaluation.scorer import KShotScorer
from ehrmeta.evaluation.scoring_rules import (
    calibration_error,
    crps_normal,
    crps_sample,
    crps_student_t,
    interval_score,
    log_probability_between,
)

__all__ = [
    "METRICS",
    "Difference",
    "KShotScorer",
    "bootstrap_counts",
    "calibration_error",
    "crps_normal",
    "crps_sample",
    "crps_student_t",
    "interval_coverage",
    "interval_score",
    "k_shot_curve",
    "log_probability_between",
    "mae_macro",
    "paired_bootstrap",
    "rmse_macro",
    "rmse_pooled",
    "rmse_task",
]
