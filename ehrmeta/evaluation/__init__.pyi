"""Public names of this package, imported when they are first read."""

from ehrmeta.evaluation.calibration import smooth_calibration_curve as smooth_calibration_curve
from ehrmeta.evaluation.discrimination import (
    DecisionCurve as DecisionCurve,
    decision_curve as decision_curve,
    net_benefit as net_benefit,
)
from ehrmeta.evaluation.k_shot import KShotScorer as KShotScorer, k_shot_curve as k_shot_curve
from ehrmeta.evaluation.k_shot_classes import k_shot_class_curve as k_shot_class_curve
from ehrmeta.evaluation.metrics import (
    METRICS as METRICS,
    Difference as Difference,
    bootstrap_counts as bootstrap_counts,
    interval_coverage as interval_coverage,
    mae_macro as mae_macro,
    paired_bootstrap as paired_bootstrap,
    rmse_macro as rmse_macro,
    rmse_pooled as rmse_pooled,
    rmse_task as rmse_task,
)
from ehrmeta.evaluation.risk import (
    RISK_METRICS as RISK_METRICS,
    risk_intervals as risk_intervals,
    risk_score as risk_score,
    risk_scores as risk_scores,
)
from ehrmeta.evaluation.scoring_rules import (
    calibration_error as calibration_error,
    crps_normal as crps_normal,
    crps_sample as crps_sample,
    crps_student_t as crps_student_t,
    interval_score as interval_score,
    log_probability_between as log_probability_between,
)
from ehrmeta.evaluation.sites import (
    PooledEffect as PooledEffect,
    pool_random_effects as pool_random_effects,
    pool_sites as pool_sites,
    score_sites as score_sites,
    score_subgroups as score_subgroups,
)
from ehrmeta.evaluation.survival import (
    aalen_johansen as aalen_johansen,
    integrated_survival_brier as integrated_survival_brier,
    kaplan_meier as kaplan_meier,
    labels_at as labels_at,
    survival_auroc as survival_auroc,
    survival_brier as survival_brier,
)
