"""Optuna's own pictures of a study."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ehrmeta.tuning.compared import compared

if TYPE_CHECKING:
    import optuna

__all__ = ["study_plots"]


def study_plots(study: optuna.Study) -> Iterator[tuple[str, Any]]:
    """Name and matplotlib axes of every picture; of several objectives the first one's.

    History is the error in full, trial by trial. Slice (the error over each parameter), importance
    (what mattered) and parallel (all parameters of a trial at once) are of the first fold, which
    judges all trials, those given up early too. Importance and parallel need trials that differ.

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
        else:
            yield "pareto", draw.plot_pareto_front(study)
        for kind, plot in plots.items():
            yield kind, plot(view, target_name=f"{name}, first fold")
