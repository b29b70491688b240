"""Scores that count patients, and the protocols that produce them."""

from ehrmeta.evaluation.bootstrap import Difference, bootstrap_counts, paired_bootstrap
from ehrmeta.evaluation.calibration import smooth_calibration_curve
from ehrmeta.evaluation.k_shot import k_shot_curve
from ehrmeta.evaluation.metrics import (
    METRICS,
    interval_coverage,
    mae_macro,
    rmse_macro,
    rmse_pooled,
    rmse_task,
)
from ehrmeta.evaluation.net_benefit import DecisionCurve, decision_curve, net_benefit
from ehrmeta.evaluation.random_effects import PooledEffect, pool_random_effects
from ehrmeta.evaluation.risk import RISK_METRICS, risk_score, risk_scores
from ehrmeta.evaluation.risk_bootstrap import risk_intervals
from ehrmeta.evaluation.scorer import KShotScorer
from ehrmeta.evaluation.scoring_rules import (
    calibration_error,
    crps_normal,
    crps_sample,
    crps_student_t,
    interval_score,
    log_probability_between,
)
from ehrmeta.evaluation.sites import pool_sites, score_sites
from ehrmeta.evaluation.subgroups import score_subgroups
from ehrmeta.evaluation.survival_curves import aalen_johansen, kaplan_meier
from ehrmeta.evaluation.survival_metrics import (
    integrated_survival_brier,
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
