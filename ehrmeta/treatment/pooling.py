"""Random-effects pooling of tasks' effects: mean, heterogeneity and prediction interval."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats
from scipy.optimize import brentq

from ehrmeta.errors import DataError
from ehrmeta.ranges import check_level
from ehrmeta.treatment.arms import AnyArray, Array, Index


@dataclass(frozen=True)
class PooledEffect:
    """Mean effect over tasks; see `pool_effects`.

    Parameters
    ----------
    effect, se : float
    interval : (low, high)
        Confidence interval for the mean over tasks.
    prediction_interval : (low, high)
        Interval for the effect in a new task; infinite with fewer than three tasks.
    tau : float
        Standard deviation of effects over tasks.
    n_tasks : int
    """

    effect: float
    se: float
    interval: tuple[float, float]
    prediction_interval: tuple[float, float]
    tau: float
    n_tasks: int

    def __str__(self) -> str:
        low, high = self.interval
        new = "in a new task {:.3g} to {:.3g}".format(*self.prediction_interval)
        return (
            f"effect {self.effect:.3g} ({low:.3g} to {high:.3g}), {new}; "
            f"sd over {self.n_tasks:,} tasks {self.tau:.2g}"
        )


def pool_effects(
    effect: ArrayLike, se: ArrayLike, *, confidence_level: float = 0.95
) -> PooledEffect:
    r"""Random-effects mean with the Paule-Mandel variance and the Hartung-Knapp interval.

    .. math:: \sum_j w_j (\hat\theta_j - \hat\theta)^2 = J - 1, \qquad w_j = 1 / (s_j^2 + \tau^2)

    Parameters
    ----------
    effect, se : (task,)
        Estimates and their standard errors.
    confidence_level : float, default 0.95

    References
    ----------
    Paule and Mandel (1982), doi:10.6028/jres.087.022; Knapp and Hartung (2003),
    doi:10.1002/sim.1482; Higgins, Thompson, Spiegelhalter (2009),
    doi:10.1111/j.1467-985X.2008.00552.x (prediction).

    Examples
    --------
    >>> pooled = pool_effects([1.0, 2.0, 3.0], [0.1, 0.1, 0.1])
    >>> round(pooled.effect, 3), round(pooled.tau, 3)
    (2.0, 0.995)
    """
    theta, s = np.asarray(effect, dtype=np.float64), np.asarray(se, dtype=np.float64)
    n = len(theta)
    if n < 1 or theta.shape != s.shape or not (s > 0).all():
        raise DataError(
            f"pooling needs an effect and a positive standard error for each task, got shapes "
            f"{theta.shape} and {s.shape}. Remove tasks without one of them."
        )
    level = 0.5 + 0.5 * check_level(confidence_level)
    if n == 1:
        wide = float(stats.norm.ppf(level) * s[0])
        centre = float(theta[0])
        interval, everything = (centre - wide, centre + wide), (-np.inf, np.inf)
        return PooledEffect(centre, float(s[0]), interval, everything, 0.0, 1)
    tau2 = _paule_mandel(theta, s)
    weight = 1.0 / (s**2 + tau2)
    mean = float(np.average(theta, weights=weight))
    spread = np.sqrt(np.sum(weight * (theta - mean) ** 2) / (n - 1))
    se_mean = float(1.0 / np.sqrt(weight.sum()) * max(spread, 1.0))
    wide = float(stats.t.ppf(level, n - 1)) * se_mean
    beyond = (
        float(stats.t.ppf(level, n - 2) * np.hypot(se_mean, np.sqrt(tau2))) if n > 2 else np.inf
    )
    return PooledEffect(
        mean,
        se_mean,
        (mean - wide, mean + wide),
        (mean - beyond, mean + beyond),
        float(np.sqrt(tau2)),
        n,
    )


def mean_by_task(
    values: Array, task: Index, labels: AnyArray | None = None, confidence_level: float = 0.95
) -> pd.DataFrame:
    """Mean of the values in each task with three rows or more, with Student's t interval.

    Returns
    -------
    DataFrame
        By task label or number: `n` rows, `effect`, `se`, `low` and `high`.

    Examples
    --------
    >>> mean_by_task(np.array([1.0, 2.0, 3.0, 9.0]), np.array([0, 0, 0, 1])).effect.to_dict()
    {0: 2.0}
    """
    n = np.bincount(task)
    tasks = np.flatnonzero(n > 2)
    mean, square = (np.bincount(task, of)[tasks] / n[tasks] for of in (values, values**2))
    se = np.sqrt((square - mean**2) / (n[tasks] - 1))
    wide = stats.t.ppf(0.5 + 0.5 * check_level(confidence_level), n[tasks] - 1) * se
    columns = {"n": n[tasks], "effect": mean, "se": se, "low": mean - wide, "high": mean + wide}
    names = tasks if labels is None else labels[tasks]
    return pd.DataFrame(columns, index=pd.Index(names, name="task"))


def _paule_mandel(theta: Array, s: Array) -> float:
    """Variance over tasks; 0 if the standard errors alone explain how effects differ."""

    def excess(tau2: float) -> float:
        weight = 1.0 / (s**2 + tau2)
        mean = np.average(theta, weights=weight)
        return float(np.sum(weight * (theta - mean) ** 2)) - (len(theta) - 1)

    if excess(0.0) <= 0:
        return 0.0
    high = float(np.var(theta, ddof=1)) + 1e-12
    while excess(high) > 0:
        high *= 2
    return float(brentq(excess, 0.0, high, xtol=1e-12 * high))
