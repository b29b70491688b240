"""Tables and pictures for people."""

from ehrmeta.report.k_shot_table import k_shot_table
from ehrmeta.report.study_pictures import save_study_pictures
from ehrmeta.report.trajectory import plot_trajectory

__all__ = ["k_shot_table", "plot_trajectory", "save_study_pictures"]
