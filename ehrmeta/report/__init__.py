"""Tables and pictures for people."""

from ehrmeta.report.calibration_display import CalibrationDisplay
from ehrmeta.report.decision_curve_display import DecisionCurveDisplay
from ehrmeta.report.document import Document
from ehrmeta.report.forecast_report import forecast_report
from ehrmeta.report.forest_display import ForestDisplay
from ehrmeta.report.k_shot_display import KShotDisplay
from ehrmeta.report.k_shot_table import k_shot_table
from ehrmeta.report.study_pictures import save_study_pictures
from ehrmeta.report.trajectory import plot_trajectory

__all__ = [
    "CalibrationDisplay",
    "DecisionCurveDisplay",
    "Document",
    "ForestDisplay",
    "KShotDisplay",
    "forecast_report",
    "k_shot_table",
    "plot_trajectory",
    "save_study_pictures",
]
