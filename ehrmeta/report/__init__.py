"""Tables and pictures for people."""

from ehrmeta.report.k_shot_table import k_shot_table
from ehrmeta.report.trajectory import plot_trajectory

__all__ = ["k_shot_table", "plot_trajectory"]
