"""A smooth calibration curve, and how far it lies from the diagonal."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ehrmeta.evaluation.binary import read_binary
from ehrmeta.evaluation.lowess import lowess
from ehrmeta.evaluation.metrics import finite

__all__ = ["calibration_index", "smooth_calibration_curve"]

Array = NDArray[np.float64]

FRAC = 2 / 3  # rms::val.prob's
_POINTS = 500


def smooth_calibration_curve(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    at: ArrayLike | None = None,
    frac: float = FRAC,
    sample_weight: ArrayLike | None = None,
) -> Array:
    """Share of events at each level of risk, by `lowess` without robustness steps.

    The smoother of ``rms::val.prob``. It may leave 0 to 1 a little where rows are few.

    Parameters
    ----------
    y_true, y_prob : (row,)
        Outcomes, 0 or 1, and risks.
    at : (point,), optional
        Risks at which to evaluate, by default those of the rows.
    frac : float
        Share of the rows behind each point.
    sample_weight : (row,), optional

    Returns
    -------
    (point,)

    Examples
    --------
    >>> smooth_calibration_curve([0, 1, 0, 1, 1, 1], [0.5, 0.5, 0.5, 0.5, 0.9, 0.9], at=[0.5])
    array([0.5])
    """
    y, p, weight = read_binary(y_true, y_prob, sample_weight)
    counts = weight > 0
    where = p if at is None else finite("at", at)
    return lowess(p[counts], y[counts], at=where, frac=frac, weight=weight[counts])


def calibration_index(y: Array, p: Array, weight: Array) -> Array:
    """Integrated calibration index (ICI): mean distance of risks from `smooth_calibration_curve`.

    Above 500 different risks the curve is linear between 250 of their quantiles and 250 points at
    equal distances: within 1e-6 for most risks, within 1e-5 where they pile up.

    Parameters
    ----------
    y, p : (row,)
        Outcomes, 0 or 1, and risks.
    weight : (sample, row)

    Returns
    -------
    (sample,)

    References
    ----------
    Austin, Steyerberg (2019), doi:10.1002/sim.8281.

    Examples
    --------
    >>> y, p = np.array([0, 1, 0, 1]), np.full(4, 0.6)
    >>> calibration_index(y, p, np.ones((1, 4))).round(6)
    array([0.1])
    """
    at = np.unique(p)
    if len(at) > _POINTS:
        share = np.linspace(0, 1, _POINTS // 2)
        even = at[0] + share * (at[-1] - at[0])
        at = np.unique(np.concatenate([np.quantile(p, share, method="nearest"), even]))
    found = np.empty(len(weight))
    for number, w in enumerate(weight):
        rows = w > 0
        curve = lowess(p[rows], y[rows], at=at, frac=FRAC, weight=w[rows])
        found[number] = w @ np.abs(np.interp(p, at, curve) - p) / w.sum()
    return found
