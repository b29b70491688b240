"""Scores of predictions per task, metrics over tasks, and paired differences."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from benchmarks.suite.arrays import Array, Index, Mask
from ehrmeta.data import OutcomeScale, Table, Warp
from ehrmeta.errors import AtypicalWarning
from ehrmeta.estimators.predictions import CarriedPredictive, Predictive
from ehrmeta.evaluation import (
    Difference,
    bootstrap_counts,
    calibration_error,
    crps_normal,
    crps_student_t,
    interval_score,
    log_probability_between,
)
from ehrmeta.evaluation.metrics import TaskMean, percentile_limits

Scores = dict[str, Array]  # (task,), or (task, bin) for "pit"

CONFIDENCE_LEVEL = 0.9
N_BINS = 20
N_LEVELS = 200  # of the quantiles of a warped distribution
N_BOOTSTRAP = 1000

#: metric: (score per task, square root of the mean, weight by rows instead of tasks)
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
    y: ArrayLike, predicted: Predictive, tasks: Index, *, resolution: float | None
) -> Scores:
    """Mean scores over the rows of every task, on the log or square root scale of the model.

    A model with another or no transform is scored on the scale of the outcome.

    Parameters
    ----------
    y : (row,)
        Untransformed.
    predicted : Predictive
    tasks : (row,)
        Task numbers.
    resolution : float, optional
        Rounding step of y: the likelihood is then the probability of the rounding bin, otherwise
        the density.

    Returns
    -------
    dict
        Tasks in sorted order: ``rows``, and means over rows, NaN without a predictive distribution.
        ``root_squared`` and ``absolute`` are errors of the median, ``squared`` of the mean.
    """
    y = np.asarray(y, dtype=np.float64)
    transform = predicted.outcome.transform
    warp = transform if isinstance(transform, Warp) else None
    scored_on = None if isinstance(transform, Warp) else transform
    distribution = predicted if warp else _on_working_scale(predicted)
    target = _working(y, scored_on)
    median = distribution.loc if distribution.scale is None else distribution.quantile(0.5)
    values: dict[str, Array] = {
        "squared": (target - distribution.mean()) ** 2,
        "squared_from_median": (target - median) ** 2,
        "absolute": np.abs(target - median),
    }
    names = ("crps", "log_likelihood", "interval_score", "covered", "width")
    bins = np.full((len(y), N_BINS), np.nan)
    if distribution.scale is None:
        values |= {name: np.full(len(y), np.nan) for name in names}
    else:
        tail = 0.5 * (1.0 - CONFIDENCE_LEVEL)
        low, high = distribution.quantile(tail), distribution.quantile(1.0 - tail)
        values["crps"] = (_crps_of_quantiles if warp else _crps)(distribution, target)
        values["interval_score"] = interval_score(
            target, low, high, confidence_level=CONFIDENCE_LEVEL
        )
        slack = 1e-5 * np.abs(target)  # for rounding, as an interval may be a single value
        values["covered"] = ((low - slack <= target) & (target <= high + slack)).astype(np.float64)
        values["width"] = high - low
        half = 0.0 if resolution is None else 0.5 * resolution
        at = [_working(y + side, scored_on) for side in (0.0, -half, half)]
        if warp:
            at = [predicted.outcome.forward(one) for one in at]
        values["log_likelihood"] = _log_likelihood(distribution, *at)
        if warp and not half:  # from the density of z to that of y
            values["log_likelihood"] += warp.log_slope(y) - np.log(predicted.outcome.scale)
        bins = _pit_shares(*distribution.cdf(target))
    codes = np.unique(tasks, return_inverse=True)[1]
    rows = np.bincount(codes).astype(np.float64)
    scores = {name: np.bincount(codes, value) / rows for name, value in values.items()}
    root_squared = np.sqrt(scores.pop("squared_from_median"))
    pit_share = np.zeros((len(rows), N_BINS))
    np.add.at(pit_share, codes, bins)
    return scores | {"rows": rows, "root_squared": root_squared, "pit": pit_share / rows[:, None]}


def score_split(model: Any, table: Table, support: Mask, query: Mask) -> Scores:
    """Adapt a fitted model to the support rows of every task, and score its query rows.

    Parameters
    ----------
    support, query : (row,)
        Tasks without a query row are skipped. Without any support row the population model is used.
    """
    with_query = np.bincount(table.tasks.codes[query], minlength=table.n_tasks) > 0
    shown, later = table.take(support & with_query[table.tasks.codes]), table.take(query)
    with warnings.catch_warnings(action="ignore", category=AtypicalWarning):
        # among many test patients some are atypical by chance
        if len(shown) == 0:
            predicted = model.unadapted().predict_distribution(later.X, time=later.time)
        else:
            adapted = model.adapt(shown.X, shown.y, groups=shown.groups, time=shown.time)
            predicted = adapted.predict_distribution(later.X, groups=later.groups, time=later.time)
    outcome = table.schema.outcome
    resolution = None if outcome is None else outcome.resolution
    return score_tasks(later.y, predicted, later.tasks.codes, resolution=resolution)


def metric(scores: Mapping[str, Array], name: str) -> TaskMean:
    """One of `METRICS` as a mean over tasks."""
    source, root, by_rows = METRICS[name]
    weight = scores["rows"] if by_rows else np.ones_like(scores["rows"])
    return TaskMean(scores[source], weight, root)


def difference(scores: Mapping[str, Array], other: Mapping[str, Array], name: str) -> Difference:
    """Difference of a metric between two methods on the same tasks, with paired 95 % interval."""
    a, b = metric(scores, name), metric(other, name)
    counts = bootstrap_counts(len(a.loss), N_BOOTSTRAP, 0)
    limits = percentile_limits(a.resampled(counts) - b.resampled(counts), 0.95)
    return Difference(a.value() - b.value(), *limits)


def calibration(scores: Mapping[str, Array]) -> float:
    """Calibration error with equal weight per task; NaN without predictive distributions."""
    share = scores["pit"].mean(axis=0)
    if np.isnan(share).any():
        return float("nan")
    middle = (np.arange(N_BINS) + 0.5) / N_BINS
    return calibration_error(middle, sample_weight=share, n_levels=N_BINS)


def joined(parts: Sequence[Scores]) -> Scores:
    """Concatenate the scores of several sets of tasks."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _on_working_scale(predicted: Predictive) -> Predictive:
    """The same distributions in units of the transformed outcome."""
    outcome = predicted.outcome

    def at(z: Array) -> Array:
        return outcome.center + outcome.scale * z

    scale = None if predicted.scale is None else outcome.scale * predicted.scale
    scaled = replace(predicted, loc=at(predicted.loc), scale=scale, outcome=OutcomeScale())
    if isinstance(scaled, CarriedPredictive):
        return replace(scaled, last=at(scaled.last))
    return scaled


def _crps(distribution: Predictive, at: Array) -> Array:
    """CRPS; with a point mass p at L and CRPS C: ``p |L - y| + (1 - p) C(y) - p (1 - p) C(L)``."""
    scale = np.asarray(distribution.scale, dtype=np.float64)

    def of_changed(at: Array) -> Array:
        if distribution.dof is None:
            return crps_normal(at, distribution.loc, scale)
        return crps_student_t(at, distribution.loc, scale, distribution.dof)

    if not isinstance(distribution, CarriedPredictive):
        return of_changed(at)
    p, last = distribution.unchanged, distribution.last
    return p * np.abs(last - at) + (1.0 - p) * (of_changed(at) - p * of_changed(last))


def _crps_of_quantiles(distribution: Predictive, at: Array) -> Array:
    """CRPS as twice the mean quantile loss over many levels."""
    levels = (np.arange(N_LEVELS) + 0.5) / N_LEVELS
    errors = ((level, at - distribution.quantile(float(level))) for level in levels)
    losses = (np.maximum(level * error, (level - 1.0) * error) for level, error in errors)
    return np.asarray(2.0 * sum(losses) / N_LEVELS)


def _log_likelihood(distribution: Predictive, at: Array, low: Array, high: Array) -> Array:
    """Log probability of the rounding bin from low to high; log density if it has no width."""
    scale = np.asarray(distribution.scale, dtype=np.float64)
    if np.array_equal(low, high):
        if isinstance(distribution, CarriedPredictive):  # a point mass has no density
            return np.full(len(at), np.nan)
        frozen = stats.norm if distribution.dof is None else stats.t(distribution.dof)
        return np.asarray(frozen.logpdf((at - distribution.loc) / scale) - np.log(scale))
    changed = log_probability_between(low, high, distribution.loc, scale, distribution.dof)
    if not isinstance(distribution, CarriedPredictive):
        return changed
    inside = (low <= distribution.last) & (distribution.last < high)
    with np.errstate(divide="ignore"):
        point_mass = np.log(np.where(inside, distribution.unchanged, 0.0))
        return np.asarray(np.logaddexp(np.log1p(-distribution.unchanged) + changed, point_mass))


def _pit_shares(below: Array, upto: Array) -> Array:
    """Shares of the bins of the PIT; a jump is spread over its bins, (row, bin)."""
    edges = np.arange(1, N_BINS) / N_BINS
    height = np.maximum(upto - below, 1e-9)[:, None]
    reached = np.clip((edges - below[:, None]) / height, 0.0, 1.0)
    ends = np.column_stack([np.zeros(len(below)), reached, np.ones(len(below))])
    return np.diff(ends, axis=1)


def _working(y: Array, transform: str | None) -> Array:
    """The transformed outcome; minus infinity where the transformation is not defined."""
    if transform is None:
        return y
    below = y <= 0
    inside = np.where(below, 1.0, y)
    scaled = np.log(inside) if transform == "log" else np.sqrt(inside)
    return np.where(below, -np.inf, scaled)
