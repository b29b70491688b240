"""Tables and pictures for people."""

from ehrmeta.report.displays.assumptions import (
    BalanceDisplay,
    ConfoundingDisplay,
    OverlapDisplay,
    RefuterDisplay,
)
from ehrmeta.report.displays.effects import DoseResponseDisplay, EffectRankDisplay
from ehrmeta.report.displays.explanation import ExplanationDisplay
from ehrmeta.report.displays.forest import ForestDisplay
from ehrmeta.report.displays.intervals import CoverageDisplay, TrajectoryDisplay
from ehrmeta.report.displays.k_shot import KShotDisplay, k_shot_table
from ehrmeta.report.displays.learning import HistoryDisplay, ShrinkageDisplay
from ehrmeta.report.displays.risk import CalibrationDisplay, DecisionCurveDisplay
from ehrmeta.report.document import Document
from ehrmeta.report.forecast_report import forecast_report
from ehrmeta.report.study_pictures import save_study_pictures
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
