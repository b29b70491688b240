"""Scores averaged over patients, and the protocols that produce them."""

from ehrmeta.evaluation.calibration import smooth_calibration_curve
from ehrmeta.evaluation.discrimination import DecisionCurve, decision_curve, net_benefit
from ehrmeta.evaluation.k_shot import KShotScorer, k_shot_curve
from ehrmeta.evaluation.metrics import (
    METRICS,
    Difference,
    bootstrap_counts,
    interval_coverage,
    mae_macro,
    paired_bootstrap,
    rmse_macro,
    rmse_pooled,
    rmse_task,
)
from ehrmeta.evaluation.risk import RISK_METRICS, risk_intervals, risk_score, risk_scores
from ehrmeta.evaluation.scoring_rules import (
    calibration_error,
    crps_normal,
    crps_sample,
    crps_student_t,
    interval_score,
    log_probability_between,
)
from ehrmeta.evaluation.sites import (
    PooledEffect,
    pool_random_effects,
    pool_sites,
    score_sites,
    score_subgroups,
)
from ehrmeta.evaluation.survival import (
    aalen_johansen,
    integrated_survival_brier,
    kaplan_meier,
    labels_at,
    survival_auroc,
    survival_brier,
)

__all__ = [
    "METRICS",
    "RISK_METRICS",
    "DecisionCurve",
    "Difference",
    "KShotScorer",
    "PooledEffect",
    "aalen_johansen",
    "bootstrap_counts",
    "calibration_error",
    "crps_normal",
    "crps_sample",
    "crps_student_t",
    "decision_curve",
    "integrated_survival_brier",
    "interval_coverage",
    "interval_score",
    "k_shot_curve",
    "kaplan_meier",
    "labels_at",
    "log_probability_between",
    "mae_macro",
    "net_benefit",
    "paired_bootstrap",
    "pool_random_effects",
    "pool_sites",
    "risk_intervals",
    "risk_score",
    "risk_scores",
    "rmse_macro",
    "rmse_pooled",
    "rmse_task",
    "score_sites",
    "score_subgroups",
    "smooth_calibration_curve",
    "survival_auroc",
    "survival_brier",
]
