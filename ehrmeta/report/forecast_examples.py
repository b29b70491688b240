"""A few test patients as pictures, from the best to the worst forecast, under made-up names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ehrmeta.data.rows import take_rows
from ehrmeta.estimators.inputs import Inputs
from ehrmeta.report.document import Picture, Section, svg_of
from ehrmeta.report.trajectory_display import TrajectoryDisplay

__all__ = ["examples_section"]

_FEWEST_LATER = 3  # values after those shown, to make a picture


def examples_section(
    model: Any, X: Any, inputs: Inputs, rows: pd.DataFrame, *, n_examples: int, level: float
) -> Section:
    """Patients at even steps of the error after the largest k.

    Parameters
    ----------
    model : fitted regressor over tasks, or ConformalRegressor
    X, inputs
        The test table.
    rows : DataFrame
        Of `forecasts`, at the largest k.
    n_examples : int
    level : float
        Of the bands.
    """
    patients = rows.groupby("task")["squared"].agg(["mean", "size"])
    patients = patients[patients["size"] >= _FEWEST_LATER].sort_values("mean")
    shares = np.linspace(0.1, 0.9, n_examples)
    y, tasks = inputs.outcome(), inputs.tasks()
    pictures = []
    for number, share in enumerate(shares if len(patients) else ()):
        task = patients.index[int(share * (len(patients) - 1))]
        own = tasks.codes == task
        time = None if inputs.time is None else inputs.time[own]
        display = TrajectoryDisplay.from_estimator(
            model,
            take_rows(X, own),
            y[own],
            time=time,
            shots=int(rows["k"].iloc[0]),
            confidence_level=level,
        )
        name = f"patient {number + 1}"
        words = f"{name}: {100 * share:.0f} % of the patients have a smaller error than this one."
        pictures.append(Picture(svg_of(display.figure_, f"patient{number + 1}"), words, name))
    paragraph = (
        f"Real values of {len(pictures)} test patients under made-up names, chosen at even steps "
        "of the error, among those with three later values or more: keep this page as you keep "
        "the records."
    )
    return Section("Example patients", (paragraph,), (), tuple(pictures), "Show ")
