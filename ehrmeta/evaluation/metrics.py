"""Regression metrics averaged over tasks, with a bootstrap over tasks.

Every metric is a weighted mean of the tasks' losses, ``sum_i w_i loss_i / sum_i w_i``, or the
square root of that.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ehrmeta.data.tasks import index_tasks
from ehrmeta.errors import DataError, renamed_argument
from ehrmeta.ranges import check_level

Array = NDArray[np.float64]
METRICS = ("rmse_macro", "rmse_task", "rmse_pooled", "mae_macro")


@dataclass(frozen=True, eq=False)
class TaskMean:
    """A metric as a weighted mean over tasks.

    Attributes
    ----------
    loss : (task,)
        Mean loss of each task.
    weight : (task,)
        1, or the task's number of rows.
    root : bool
        Whether the metric is the square root of the mean.
    """

    loss: Array
    weight: Array
    root: bool

    def value(self) -> float:
        """The metric; NaN without tasks."""
        return float(self.resampled(np.ones((1, len(self.loss))))[0])

    def resampled(self, counts: Array) -> Array:
        """The metric in bootstrap samples, from (sample, task) counts, (sample,)."""
        with np.errstate(invalid="ignore"):
            mean: Array = counts @ (self.weight * self.loss) / (counts @ self.weight)
        return np.sqrt(mean) if self.root else mean


def task_mean(metric: str, y: ArrayLike, prediction: ArrayLike, groups: ArrayLike) -> TaskMean:
    """One of `METRICS` as a mean over tasks, in sorted order.

    Parameters
    ----------
    metric : str
    y, prediction : (row,)
        Outcome and its prediction, in the outcome's unit.
    groups : (row,)
        Task of each row.
    """
    if metric not in METRICS:
        raise DataError(f"unknown metric {metric!r}. Use one of {', '.join(METRICS)}.")
    error = finite("y", y) - finite("prediction", prediction)
    tasks = index_tasks(np.asarray(groups))
    if len(tasks.codes) != len(error):
        raise DataError(f"groups has {len(tasks.codes)} rows, y has {len(error)}.")
    loss = np.abs(error) if metric == "mae_macro" else error**2
    rows = np.bincount(tasks.codes, minlength=tasks.n_tasks).astype(np.float64)
    loss = np.bincount(tasks.codes, loss, minlength=tasks.n_tasks) / rows
    if metric == "rmse_task":
        loss = np.sqrt(loss)
    weight = rows if metric == "rmse_pooled" else np.ones_like(rows)
    return TaskMean(loss, weight, root=metric in ("rmse_macro", "rmse_pooled"))


def rmse_macro(y: ArrayLike, prediction: ArrayLike, groups: ArrayLike) -> float:
    """Square root of the patients' mean squared errors averaged over patients (the main metric).

    Examples
    --------
    >>> rmse_macro([0, 0, 0], [1, 1, 7], ["a", "a", "b"])  # sqrt((1 + 49) / 2)
    5.0
    """
    return task_mean("rmse_macro", y, prediction, groups).value()


def rmse_task(y: ArrayLike, prediction: ArrayLike, groups: ArrayLike) -> float:
    """Root mean squared error of each patient, averaged over patients.

    Examples
    --------
    >>> rmse_task([0, 0, 0], [3, 3, 4], ["a", "a", "b"])  # (3 + 4) / 2
    3.5
    """
    return task_mean("rmse_task", y, prediction, groups).value()


def rmse_pooled(y: ArrayLike, prediction: ArrayLike, groups: ArrayLike) -> float:
    """Root mean squared error over all rows, so patients with many rows count more.

    Examples
    --------
    >>> rmse_pooled([0, 0, 0], [1, 1, 5], ["a", "a", "b"])  # sqrt((1 + 1 + 25) / 3)
    3.0
    """
    return task_mean("rmse_pooled", y, prediction, groups).value()


def mae_macro(y: ArrayLike, prediction: ArrayLike, groups: ArrayLike) -> float:
    """Mean absolute error of each patient, averaged over patients.

    Examples
    --------
    >>> mae_macro([0, 0, 0], [3, 3, 4], ["a", "a", "b"])  # (3 + 4) / 2
    3.5
    """
    return task_mean("mae_macro", y, prediction, groups).value()


def interval_coverage(
    y: ArrayLike, low: ArrayLike, high: ArrayLike, groups: ArrayLike | None = None
) -> float:
    """Coverage: share of outcomes inside their interval, over rows or averaged over patients.

    Examples
    --------
    >>> interval_coverage([1, 2, 9], [0, 0, 0], [3, 3, 3], ["a", "a", "b"])
    0.5
    """
    y, low, high = finite("y", y), np.asarray(low, float), np.asarray(high, float)
    inside = ((low <= y) & (y <= high)).astype(np.float64)
    if groups is None:
        return float(inside.mean())
    tasks = index_tasks(np.asarray(groups))
    return float(np.mean(np.bincount(tasks.codes, inside) / np.bincount(tasks.codes)))


def finite(name: str, values: Any) -> Array:
    """Values as float64; raises `DataError` for text, NaN and infinity."""
    try:
        array: Array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):  # NumPy's message would show a value
        raise DataError(f"{name} must be numbers, not text or rows of unequal length.") from None
    refuse(~np.isfinite(array), f"{name} is NaN or infinite")
    return array


def refuse(wrong: Any, what: str, remedy: str = "", *, of: str = "rows") -> None:
    """Raise a `DataError` with the number of wrong rows, if there are any."""
    n = int(np.count_nonzero(wrong))
    if n:
        raise DataError(f"{what} in {n} of {np.size(wrong)} {of}. {remedy}".rstrip())


class Difference(NamedTuple):
    """Difference between two methods, with confidence limits."""

    difference: float
    low: float
    high: float


def bootstrap_counts(
    n_tasks: int, n_bootstrap: int, random_state: int | np.random.Generator | None = None
) -> Array:
    """How often each bootstrap sample of the tasks contains each task, (sample, task)."""
    rng = np.random.default_rng(random_state)
    counts = np.empty((n_bootstrap, n_tasks))
    for sample in counts:
        sample[:] = np.bincount(rng.integers(n_tasks, size=n_tasks), minlength=n_tasks)
    return counts


def percentile_limits(samples: Array, confidence_level: float) -> tuple[float, float]:
    """Percentile interval of bootstrap samples; NaN without samples."""
    check_level(confidence_level)
    if len(samples) == 0:
        return np.nan, np.nan
    tail = (1 - confidence_level) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return float(low), float(high)


@renamed_argument("weight", "sample_weight")
def paired_bootstrap(
    loss_a: ArrayLike,
    loss_b: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    root: bool = True,
    confidence_level: float = 0.9,
    n_bootstrap: int = 1000,
    random_state: int | None = 0,
) -> Difference:
    """Difference ``statistic(a) - statistic(b)`` with a paired bootstrap interval over patients.

    The interval is 90 % by default.

    Parameters
    ----------
    loss_a, loss_b : (task,)
        Losses of the two methods on the same patients in the same order.
    sample_weight : (task,), optional
        Weight of each patient in the mean; equal by default.
    root : bool
        Whether the statistic is the square root of the mean loss, or the mean loss. If the losses
        are the patients' mean squared errors, the square root is `rmse_macro`.

    Examples
    --------
    >>> paired_bootstrap([4.0, 4.0, 4.0], [1.0, 1.0, 1.0])
    Difference(difference=1.0, low=1.0, high=1.0)
    """
    a, b = np.asarray(loss_a, np.float64), np.asarray(loss_b, np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) == 0:
        raise DataError(
            f"loss_a {a.shape} and loss_b {b.shape} must have one loss for each of the same tasks."
        )
    w = np.ones_like(a) if sample_weight is None else np.asarray(sample_weight, np.float64)
    first, second = TaskMean(a, w, root), TaskMean(b, w, root)
    counts = bootstrap_counts(len(a), n_bootstrap, random_state)
    samples = first.resampled(counts) - second.resampled(counts)
    return Difference(first.value() - second.value(), *percentile_limits(samples, confidence_level))
