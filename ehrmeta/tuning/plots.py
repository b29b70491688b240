"""Optuna's own pictures of a study."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ehrmeta.tuning.compared import compared

if TYPE_CHECKING:
    import optuna

__all__ = ["study_plots"]


def study_plots(study: optuna.Study) -> Iterator[tuple[str, Any]]:
    """Name and matplotlib axes of every picture; of several objectives the first one's.

    History is the error in full, trial by trial: of those given up early what it would have been;
    of two or three objectives there is their Pareto front instead. Slice (the error over each
    parameter), importance (what mattered) and parallel (all parameters of a trial at once) are of
    the first fold, which judges all trials. Importance and parallel need trials that differ.

    Raises
    ------
    StudyError
        No trial got through the first fold.
    """
    from optuna.visualization import matplotlib as draw

    name = (study.metric_names or ["error"])[0]
    view = compared(study)
    trials = view.get_trials(deepcopy=False)
    plots: dict[str, Callable[..., Any]] = {"slice": draw.plot_slice}
    if len({trial.values[0] for trial in trials}) > 1:
        plots["importance"] = draw.plot_param_importances
        if max(len(trial.params) for trial in trials) > 1:
            plots["parallel"] = draw.plot_parallel_coordinate
    with warnings.catch_warnings():  # that Optuna calls its pictures experimental
        warnings.simplefilter("ignore")
        if len(study.directions) == 1:
            yield "history", draw.plot_optimization_history(study, target_name=name)
        elif len(study.directions) <= 3:
            yield "pareto", draw.plot_pareto_front(study)
        for kind, plot in plots.items():
            axes = plot(view, target_name=f"{name}, first fold")
            if kind == "slice":
                for one in np.ravel(axes):
                    one.tick_params(axis="x", which="both", labelrotation=45)
            elif kind == "parallel":  # light lines are seen on grey, numbers without the grids
                for one in axes.figure.axes:
                    one.grid(visible=False)
                    one.set_facecolor("0.7")
            yield kind, axes
