"""Random-effects meta-analysis: what is common to sites, and how far they differ."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from ehrmeta.errors import DataError
from ehrmeta.evaluation.metrics import finite

__all__ = ["PooledEffect", "pool_random_effects"]

Array = NDArray[np.float64]

_FEWEST = 3  # the prediction interval has S - 2 degrees of freedom


class PooledEffect(NamedTuple):
    """A mean over sites with its interval, and where a new site may lie."""

    value: float
    low: float
    high: float
    prediction_low: float
    prediction_high: float
    tau2: float  # variance between sites


def pool_random_effects(
    estimate: ArrayLike, se: ArrayLike, *, confidence_level: float = 0.95
) -> PooledEffect:
    r"""Mean of the sites' true values, with weights :math:`w_s = 1 / (se_s^2 + \tau^2)`.

    :math:`\tau^2` is Paule and Mandel's: :math:`\sum_s w_s (y_s - \mu)^2 = S - 1`, or 0 where even
    that leaves less. The interval is Hartung and Knapp's (Sidik and Jonkman's) without correction:

    .. math:: \mu \pm t_{S-1} \sqrt v, \quad
              v = \frac{\sum_s w_s (y_s - \mu)^2}{(S - 1) \sum_s w_s}

    and a new site's value lies in :math:`\mu \pm t_{S-2} \sqrt{\tau^2 + v}` (Higgins).

    Parameters
    ----------
    estimate, se : (site,)
        Each site's value and standard error, on a scale where they are nearly normal.
    confidence_level : float
        Of both intervals.

    Raises
    ------
    DataError
        Fewer than 3 sites, NaN, or a standard error that is not positive.

    References
    ----------
    Paule, Mandel (1982), doi:10.6028/jres.087.022. Hartung, Knapp (2001), doi:10.1002/sim.791.
    Higgins et al. (2009), doi:10.1111/j.1467-985X.2008.00552.x.

    Examples
    --------
    >>> pooled = pool_random_effects([0.1, 0.3, 0.5, 0.9], [0.1, 0.1, 0.1, 0.1])
    >>> round(pooled.value, 3), round(pooled.tau2, 4)  # variance .1167 less .01
    (0.45, 0.1067)
    """
    y, s = finite("estimate", estimate), finite("se", se)
    if y.ndim != 1 or y.shape != s.shape or len(y) < _FEWEST:
        raise DataError(
            f"estimate {y.shape} and se {s.shape} must hold one value for each of at least "
            f"{_FEWEST} sites. List fewer instead of pooling them."
        )
    if np.any(s <= 0):
        raise DataError(f"se is not positive in {int(np.count_nonzero(s <= 0))} of {len(s)} sites.")
    if not 0 < confidence_level < 1:
        raise DataError(f"confidence_level is {confidence_level}; it must lie between 0 and 1.")
    tau2 = _paule_mandel(y, s**2)
    mean, q = _mean_and_q(y, s**2 + tau2)
    variance = q / (len(y) - 1) / np.sum(1 / (s**2 + tau2))
    level = 0.5 + confidence_level / 2
    half = float(stats.t.ppf(level, len(y) - 1) * np.sqrt(variance))
    ahead = float(stats.t.ppf(level, len(y) - 2) * np.sqrt(tau2 + variance))
    return PooledEffect(mean, mean - half, mean + half, mean - ahead, mean + ahead, tau2)


def _mean_and_q(y: Array, variance: Array) -> tuple[float, float]:
    """Weighted mean and weighted sum of squares about it."""
    mean = float(np.average(y, weights=1 / variance))
    return mean, float(np.sum((y - mean) ** 2 / variance))


def _paule_mandel(y: Array, variance: Array) -> float:
    def excess(tau2: float) -> float:
        return _mean_and_q(y, variance + tau2)[1] - (len(y) - 1)

    if excess(0.0) <= 0:
        return 0.0
    widest = float(np.sum((y - y.mean()) ** 2))  # there every weight is below 1 / widest
    return float(optimize.brentq(excess, 0.0, widest, xtol=1e-14))
