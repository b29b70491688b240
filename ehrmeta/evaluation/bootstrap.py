"""Bootstrap intervals over patients, with the same resamples for every method."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ehrmeta.errors import DataError
from ehrmeta.evaluation.metrics import Array, TaskMean, check_level


class Difference(NamedTuple):
    """A difference between two methods and its confidence limits."""

    difference: float
    low: float
    high: float


def bootstrap_counts(
    n_tasks: int, n_bootstrap: int, random_state: int | np.random.Generator | None = None
) -> Array:
    """Draw patients with replacement: how often each comes up, (sample, task)."""
    rng = np.random.default_rng(random_state)
    counts = np.empty((n_bootstrap, n_tasks))
    for sample in counts:
        sample[:] = np.bincount(rng.integers(n_tasks, size=n_tasks), minlength=n_tasks)
    return counts


def percentile_limits(samples: Array, confidence_level: float) -> tuple[float, float]:
    """The central interval that holds `confidence_level` of the samples; NaN without any."""
    check_level(confidence_level)
    if len(samples) == 0:
        return np.nan, np.nan
    tail = (1 - confidence_level) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return float(low), float(high)


def paired_bootstrap(
    loss_a: ArrayLike,
    loss_b: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    root: bool = True,
    confidence_level: float = 0.95,
    n_bootstrap: int = 1000,
    random_state: int | None = 0,
) -> Difference:
    """Difference ``statistic(a) - statistic(b)`` with a percentile interval over patients.

    Parameters
    ----------
    loss_a, loss_b : (task,)
        Losses of the two methods on the same patients in the same order.
    weight : (task,), optional
        Weight of each patient in the mean; equal by default.
    root : bool
        The statistic is the square root of the mean loss (`rmse_macro` of the patients' mean
        squared errors), else the mean loss.

    Examples
    --------
    >>> paired_bootstrap([4.0, 4.0, 4.0], [1.0, 1.0, 1.0])
    Difference(difference=1.0, low=1.0, high=1.0)
    """
    a, b = np.asarray(loss_a, np.float64), np.asarray(loss_b, np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) == 0:
        raise DataError(
            f"loss_a {a.shape} and loss_b {b.shape} must hold one loss for each of the same tasks."
        )
    w = np.ones_like(a) if weight is None else np.asarray(weight, np.float64)
    first, second = TaskMean(a, w, root), TaskMean(b, w, root)
    counts = bootstrap_counts(len(a), n_bootstrap, random_state)
    samples = first.resampled(counts) - second.resampled(counts)
    return Difference(first.value() - second.value(), *percentile_limits(samples, confidence_level))
