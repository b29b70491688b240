"""What a benchmark keeps of a method's predictions: a few sums for every task."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ehrmeta.data import Table
from ehrmeta.errors import AtypicalWarning
from ehrmeta.estimators.predictive import Predictive
from ehrmeta.evaluation import (
    calibration_error,
    crps_normal,
    crps_student_t,
    interval_score,
    log_probability_between,
)
from ehrmeta.evaluation.metrics import TaskMean

__all__ = ["METRICS", "Scores", "calibration", "joined", "metric", "score_split", "score_tasks"]

Array = NDArray[np.float64]
Scores = dict[str, Array]  # (task,), or (task, bin) for "pit"

CONFIDENCE_LEVEL = 0.9
N_BINS = 20

#: metric: (sum it is made of, square root of the mean, every row counts rather than every task)
METRICS: dict[str, tuple[str, bool, bool]] = {
    "rmse_macro": ("squared", True, False),
    "rmse_pooled": ("squared", True, True),
    "rmse_task": ("root_squared", False, False),
    "mae": ("absolute", False, False),
    "crps": ("crps", False, False),
    "log_likelihood": ("log_likelihood", False, False),
    "interval_score": ("interval_score", False, False),
    "coverage": ("covered", False, False),
    "width": ("width", False, False),
}


def score_tasks(
    y: ArrayLike, predicted: Predictive, tasks: NDArray[np.int64], *, resolution: float | None
) -> Scores:
    """Mean scores of every task's rows, on the scale that the model works on.

    Parameters
    ----------
    y : (row,)
        On the outcome's own scale.
    predicted : Predictive
    tasks : (row,)
        Task numbers.
    resolution : float, optional
        Step in which y is recorded: the likelihood is then that of its rounding bin, else the
        density.

    Returns
    -------
    dict
        Tasks in sorted order: ``rows``, and means over rows; NaN where the method names no
        distribution.
    """
    y = np.asarray(y, dtype=np.float64)
    outcome = predicted.outcome
    at = outcome.center + outcome.scale * outcome.forward(y)
    loc = outcome.center + outcome.scale * predicted.loc
    values: dict[str, Array] = {"squared": (at - loc) ** 2, "absolute": np.abs(at - loc)}
    names = ("crps", "log_likelihood", "interval_score", "covered", "width")
    bins = np.full((len(y), N_BINS), np.nan)
    if predicted.scale is None:
        values |= {name: np.full(len(y), np.nan) for name in names}
    else:
        scale, dof = outcome.scale * predicted.scale, predicted.dof
        frozen = stats.norm(loc, scale) if dof is None else stats.t(dof, loc, scale)
        tail = 0.5 * (1.0 - CONFIDENCE_LEVEL)
        low, high = frozen.ppf(tail), frozen.ppf(1.0 - tail)
        values["crps"] = (
            crps_normal(at, loc, scale) if dof is None else crps_student_t(at, loc, scale, dof)
        )
        values["interval_score"] = interval_score(at, low, high, confidence_level=CONFIDENCE_LEVEL)
        values["covered"] = ((low <= at) & (at <= high)).astype(np.float64)
        values["width"] = high - low
        if resolution is None:
            values["log_likelihood"] = frozen.logpdf(at)
        else:
            below, above = (
                _working(y + half, outcome.transform) for half in (-resolution / 2, resolution / 2)
            )
            values["log_likelihood"] = log_probability_between(below, above, loc, scale, dof)
        pit = np.minimum((frozen.cdf(at) * N_BINS).astype(np.int64), N_BINS - 1)
        bins = np.eye(N_BINS)[pit]
    codes = np.unique(tasks, return_inverse=True)[1]
    rows = np.bincount(codes).astype(np.float64)
    scores = {name: np.bincount(codes, value) / rows for name, value in values.items()}
    pit_share = np.zeros((len(rows), N_BINS))
    np.add.at(pit_share, codes, bins)
    return scores | {
        "rows": rows,
        "root_squared": np.sqrt(scores["squared"]),
        "pit": pit_share / rows[:, None],
    }


def score_split(
    model: Any, table: Table, support: NDArray[np.bool_], query: NDArray[np.bool_]
) -> Scores:
    """Adapt a fitted model to the support rows of every task, and score its query rows.

    Parameters
    ----------
    support, query : (row,)
        Tasks without a query row are left out; with no support at all it is the population model.
    """
    asked = np.bincount(table.tasks.codes[query], minlength=table.n_tasks) > 0
    shown, later = table.take(support & asked[table.tasks.codes]), table.take(query)
    with warnings.catch_warnings():  # among many test patients some are atypical by chance
        warnings.simplefilter("ignore", AtypicalWarning)
        if len(shown) == 0:
            found = model.unadapted().predict_distribution(later.X, time=later.time)
        else:
            adapted = model.adapt(shown.X, shown.y, groups=shown.groups, time=shown.time)
            found = adapted.predict_distribution(later.X, groups=later.groups, time=later.time)
    outcome = table.schema.outcome
    resolution = None if outcome is None else outcome.resolution
    return score_tasks(later.y, found, later.tasks.codes, resolution=resolution)


def metric(scores: Mapping[str, Array], name: str) -> TaskMean:
    """One of `METRICS` before its mean over tasks is taken."""
    source, root, by_rows = METRICS[name]
    weight = scores["rows"] if by_rows else np.ones_like(scores["rows"])
    return TaskMean(scores[source], weight, root)


def calibration(scores: Mapping[str, Array]) -> float:
    """Calibration error, every task of equal weight; NaN without distributions."""
    share = scores["pit"].mean(axis=0)
    if np.isnan(share).any():
        return float("nan")
    middle = (np.arange(N_BINS) + 0.5) / N_BINS
    return calibration_error(middle, weight=share, n_levels=N_BINS)


def joined(parts: Sequence[Scores]) -> Scores:
    """Scores of several sets of tasks as one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _working(y: Array, transform: str | None) -> Array:
    """The scale that models work on; what lies below its start is minus infinity."""
    if transform is None:
        return y
    below = y <= 0
    inside = np.where(below, 1.0, y)
    scaled = np.log(inside) if transform == "log" else np.sqrt(inside)
    return np.where(below, -np.inf, scaled)
