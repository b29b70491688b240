"""Scores that count patients, and the protocols that produce them."""

from ehrmeta.evaluation.bootstrap import Difference, bootstrap_counts, paired_bootstrap
from ehrmeta.evaluation.k_shot import k_shot_curve
from ehrmeta.evaluation.metrics import (
    METRICS,
    crps_normal,
    interval_coverage,
    mae_macro,
    rmse_macro,
    rmse_pooled,
    rmse_task,
)
from ehrmeta.evaluation.scorer import KShotScorer

__all__ = [
    "METRICS",
    "Difference",
    "KShotScorer",
    "bootstrap_counts",
    "crps_normal",
    "interval_coverage",
    "k_shot_curve",
    "mae_macro",
    "paired_bootstrap",
    "rmse_macro",
    "rmse_pooled",
    "rmse_task",
]
