"""Proper scoring rules and calibration error of predictive distributions.

Scores are per row. The CRPS and the interval score are in the outcome's unit, and lower is better;
for the log probability, higher is better.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from ehrmeta.errors import DataError, renamed_argument
from ehrmeta.evaluation.metrics import Array, finite, refuse
from ehrmeta.ranges import check_level


def crps_normal(y: ArrayLike, mean: ArrayLike, sd: ArrayLike) -> Array:
    r"""Continuous ranked probability score of normal predictions, per row.

    ``sd (u (2 Phi(u) - 1) + 2 phi(u) - 1 / sqrt(pi))`` with ``u = (y - mean) / sd``; the absolute
    error if sd is 0.

    References
    ----------
    Gneiting, Raftery (2007), doi:10.1198/016214506000001437.

    Examples
    --------
    >>> crps_normal([0.0], [0.0], [1.0]).round(4)
    array([0.2337])
    """
    y, mean, sd = finite("y", y), finite("mean", mean), _scale("sd", sd)
    u = (y - mean) / np.where(sd > 0, sd, 1.0)
    spread = u * (2 * stats.norm.cdf(u) - 1) + 2 * stats.norm.pdf(u) - 1 / np.sqrt(np.pi)
    score: Array = np.where(sd > 0, sd * spread, np.abs(y - mean))
    return score


def crps_student_t(y: ArrayLike, loc: ArrayLike, scale: ArrayLike, dof: ArrayLike) -> Array:
    r"""Continuous ranked probability score of Student-t predictions, per row.

    With ``u = (y - loc) / scale`` and B the beta function, the score is scale times

    .. math:: u (2 F_\nu(u) - 1) + 2 f_\nu(u) \frac{\nu + u^2}{\nu - 1}
              - \frac{2 \sqrt\nu}{\nu - 1} \frac{B(1/2, \nu - 1/2)}{B(1/2, \nu/2)^2}

    Parameters
    ----------
    dof : (row,) or float
        Degrees of freedom, more than 1; otherwise the score is infinite.

    References
    ----------
    Jordan, Krüger, Lerch (2019), doi:10.18637/jss.v090.i12.

    Examples
    --------
    >>> crps_student_t([0.0], [0.0], [1.0], 1e6).round(4)  # almost normal
    array([0.2337])
    """
    y, loc = finite("y", y), finite("loc", loc)
    scale, dof = _scale("scale", scale), finite("dof", dof)
    if np.any(dof <= 1):
        raise DataError("dof must be more than 1: otherwise the CRPS is infinite.")
    u = (y - loc) / np.where(scale > 0, scale, 1.0)
    beta = np.exp(special.betaln(0.5, dof - 0.5) - 2.0 * special.betaln(0.5, 0.5 * dof))
    spread = (
        u * (2 * stats.t.cdf(u, dof) - 1)
        + 2 * stats.t.pdf(u, dof) * (dof + u**2) / (dof - 1)
        - 2 * np.sqrt(dof) / (dof - 1) * beta
    )
    score: Array = np.where(scale > 0, scale * spread, np.abs(y - loc))
    return score


def crps_sample(y: ArrayLike, samples: ArrayLike) -> Array:
    """Continuous ranked probability score of draws from the predictive distribution, per row.

    ``mean |x_i - y| - sum_ij |x_i - x_j| / (2 m (m - 1))``, which is unbiased for any number m of
    draws.

    Parameters
    ----------
    samples : (row, draw)
        At least two draws per row.

    References
    ----------
    Zamo, Naveau (2018), doi:10.1007/s11004-017-9709-7.

    Examples
    --------
    >>> crps_sample([0.0], [[-1.0, 1.0]])  # 1 - 2 / 2
    array([0.])
    """
    y, samples = finite("y", y), finite("samples", samples)
    if samples.ndim != 2 or len(samples) != len(y) or samples.shape[1] < 2:
        raise DataError(
            f"samples has shape {samples.shape}; pass (row, draw) with {len(y)} rows and at least "
            "two draws."
        )
    m = samples.shape[1]
    rank_weight = 2.0 * np.arange(m) - (m - 1)  # sum_ij |x_i - x_j| = 2 sum_i x_(i) weight_i
    spread = np.sort(samples, axis=1) @ rank_weight / (m * (m - 1))
    score: Array = np.abs(samples - y[:, None]).mean(axis=1) - spread
    return score


def interval_score(
    y: ArrayLike, low: ArrayLike, high: ArrayLike, *, confidence_level: float = 0.9
) -> Array:
    """Interval score: width of a central interval plus a penalty if it misses y, per row.

    ``(high - low) + 2 / a * distance of y from the interval`` with a = 1 - confidence_level. The
    default is for 90 % intervals.

    References
    ----------
    Gneiting, Raftery (2007), doi:10.1198/016214506000001437.

    Examples
    --------
    >>> interval_score([0.5, 2.0], [0.0, 0.0], [1.0, 1.0], confidence_level=0.9).round(6)
    array([ 1., 21.])
    """
    check_level(confidence_level)
    y, low, high = finite("y", y), finite("low", low), finite("high", high)
    refuse(low > high, "low exceeds high")
    outside = np.maximum(low - y, 0.0) + np.maximum(y - high, 0.0)
    score: Array = high - low + 2.0 / (1.0 - confidence_level) * outside
    return score


def log_probability_between(
    low: ArrayLike, high: ArrayLike, loc: ArrayLike, scale: ArrayLike, dof: ArrayLike | None = None
) -> Array:
    """Log probability of an interval under normal (or Student-t) predictions, per row.

    If the interval is the range of values that round to a recorded value, this is a log likelihood.
    Unlike a log density, it is never above 0.

    Parameters
    ----------
    low, high : (row,)
        Ends of the interval; low may be -inf.

    Examples
    --------
    >>> log_probability_between([-1.0], [1.0], [0.0], [1.0]).round(4)  # log .6827
    array([-0.3817])
    """
    loc, scale = finite("loc", loc), _scale("scale", scale)
    refuse(scale == 0, "scale is 0")
    a, b = (np.asarray(low, float) - loc) / scale, (np.asarray(high, float) - loc) / scale
    upper = a > 0  # mirrored, because cdfs near 1 lose precision in a difference
    a, b = np.where(upper, -b, a), np.where(upper, -a, b)
    below = stats.norm if dof is None else stats.t(np.asarray(dof, dtype=np.float64))
    log_a, log_b = below.logcdf(a), below.logcdf(b)
    with np.errstate(divide="ignore"):  # an empty interval
        log_probability: Array = log_b + np.log(-np.expm1(np.minimum(log_a - log_b, 0.0)))
    return log_probability


@renamed_argument("weight", "sample_weight")
def calibration_error(
    pit: ArrayLike, *, sample_weight: ArrayLike | None = None, n_levels: int = 20
) -> float:
    """Mean absolute difference between quantile levels and observed shares below these quantiles.

    0 is perfect. It is about 1/2 if all predictions are too low, or all are too high.

    Parameters
    ----------
    pit : (row,)
        Predictive distribution function of each row at its outcome, between 0 and 1.
    sample_weight : (row,), optional
        Weight of each row; equal by default.
    n_levels : int
        Number n of levels 1 / n, 2 / n, ..., 1.

    References
    ----------
    Kuleshov, Fenner, Ermon (2018), arXiv:1807.00263.

    Examples
    --------
    >>> round(calibration_error([0.25, 0.75], n_levels=4), 3)  # shares 1/2, 1/2, 1, 1
    0.125
    """
    pit = finite("pit", pit)
    if np.any((pit < 0) | (pit > 1)):
        raise DataError(
            "pit must lie between 0 and 1. Pass values of the predictive distribution functions."
        )
    levels = np.arange(1, n_levels + 1) / n_levels
    weight = np.ones_like(pit) if sample_weight is None else finite("sample_weight", sample_weight)
    order = np.argsort(pit)
    total = np.concatenate([[0.0], np.cumsum(weight[order])])
    share = total[np.searchsorted(pit[order], levels, side="right")] / total[-1]
    return float(np.mean(np.abs(share - levels)))


def _scale(name: str, values: ArrayLike) -> Array:
    scale = finite(name, values)
    refuse(scale < 0, f"{name} is negative")
    return scale
