"""Public names of this package, imported when they are first read."""

from ehrmeta.report.displays.effects import (
    BalanceDisplay as BalanceDisplay,
    ConfoundingDisplay as ConfoundingDisplay,
    DoseResponseDisplay as DoseResponseDisplay,
    EffectRankDisplay as EffectRankDisplay,
    OverlapDisplay as OverlapDisplay,
    RefuterDisplay as RefuterDisplay,
)
from ehrmeta.report.displays.explanation import ExplanationDisplay as ExplanationDisplay
from ehrmeta.report.displays.forest import ForestDisplay as ForestDisplay
from ehrmeta.report.displays.intervals import (
    CoverageDisplay as CoverageDisplay,
    TrajectoryDisplay as TrajectoryDisplay,
)
from ehrmeta.report.displays.learning import (
    HistoryDisplay as HistoryDisplay,
    KShotDisplay as KShotDisplay,
    ShrinkageDisplay as ShrinkageDisplay,
    k_shot_table as k_shot_table,
)
from ehrmeta.report.displays.risk import (
    CalibrationDisplay as CalibrationDisplay,
    DecisionCurveDisplay as DecisionCurveDisplay,
)
from ehrmeta.report.document import Document as Document
from ehrmeta.report.forecast import forecast_report as forecast_report
from ehrmeta.report.membership import membership_audit as membership_audit
from ehrmeta.report.risk import risk_report as risk_report
from ehrmeta.report.study_pictures import save_study_pictures as save_study_pictures
from ehrmeta.report.treatment import treatment_report as treatment_report
