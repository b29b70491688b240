"""Tables and pictures for people."""

from ehrmeta.report.balance_display import BalanceDisplay
from ehrmeta.report.calibration_display import CalibrationDisplay
from ehrmeta.report.confounding_display import ConfoundingDisplay
from ehrmeta.report.coverage_display import CoverageDisplay
from ehrmeta.report.decision_curve_display import DecisionCurveDisplay
from ehrmeta.report.document import Document
from ehrmeta.report.dose_response_display import DoseResponseDisplay
from ehrmeta.report.effect_rank_display import EffectRankDisplay
from ehrmeta.report.explanation_display import ExplanationDisplay
from ehrmeta.report.forecast_report import forecast_report
from ehrmeta.report.forest_display import ForestDisplay
from ehrmeta.report.history_display import HistoryDisplay
from ehrmeta.report.k_shot_display import KShotDisplay
from ehrmeta.report.k_shot_table import k_shot_table
from ehrmeta.report.overlap_display import OverlapDisplay
from ehrmeta.report.refuter_display import RefuterDisplay
from ehrmeta.report.shrinkage_display import ShrinkageDisplay
from ehrmeta.report.study_pictures import save_study_pictures
from ehrmeta.report.trajectory_display import TrajectoryDisplay
from ehrmeta.report.treatment_report import treatment_report

__all__ = [
    "BalanceDisplay",
    "CalibrationDisplay",
    "ConfoundingDisplay",
    "CoverageDisplay",
    "DecisionCurveDisplay",
    "Document",
    "DoseResponseDisplay",
    "EffectRankDisplay",
    "ExplanationDisplay",
    "ForestDisplay",
    "HistoryDisplay",
    "KShotDisplay",
    "OverlapDisplay",
    "RefuterDisplay",
    "ShrinkageDisplay",
    "TrajectoryDisplay",
    "forecast_report",
    "k_shot_table",
    "save_study_pictures",
    "treatment_report",
]
