"""Logistic recalibration: how the logit of a risk must be moved and stretched to fit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["recalibrate"]

Array = NDArray[np.float64]

_MAX_STEPS, _LONGEST_STEP, _TOLERANCE = 100, 4.0, 1e-10


def recalibrate(y: Array, p: Array, weight: Array, *, with_slope: bool) -> Array:
    r"""Regress outcomes on the logits of their risks, by Newton's method.

    :math:`\mathrm{logit}\, P(y = 1) = a + b\, \mathrm{logit}(p)`, with b = 1 unless `with_slope`.

    Parameters
    ----------
    y, p : (row,)
        Outcomes, 0 or 1, and risks.
    weight : (sample, row)
        Every sample is a fit of its own.
    with_slope : bool
        Estimate b too.

    Returns
    -------
    (sample, 2)
        Intercept a and slope b. NaN without a finite estimate: one class only, risks of exactly 0
        or 1, and for the slope one risk for all, or risks that separate the classes.

    Examples
    --------
    >>> y, p = np.array([0, 1, 1, 1]), np.full(4, 0.5)
    >>> recalibrate(y, p, np.ones((1, 4)), with_slope=False).round(4)  # log 3
    array([[1.0986, 1.    ]])
    """
    logit = special.logit(p)
    found = np.full((len(weight), 2), np.nan)
    if not np.all(np.isfinite(logit)):
        return found
    fits = _overlap(y, logit if with_slope else np.zeros_like(logit), weight, strict=with_slope)
    if not fits.any():
        return found
    w = weight[fits] / weight[fits].sum(1, keepdims=True)
    prevalence = special.logit(w @ y)
    if with_slope:
        center = logit.mean()
        design = np.column_stack([np.ones_like(logit), logit - center])
        start = np.column_stack([prevalence, np.zeros_like(prevalence)])
        fit = _newton(y, design, np.zeros_like(logit), w, start)
        found[fits] = np.column_stack([fit[:, 0] - center * fit[:, 1], fit[:, 1]])
    else:
        start = prevalence - special.logit(w @ p)
        fit = _newton(y, np.ones((len(y), 1)), logit, w, start[:, None])
        found[fits] = np.column_stack([fit[:, 0], np.ones(len(fit))])
    return found


def _overlap(y: Array, x: Array, weight: Array, *, strict: bool) -> NDArray[np.bool_]:
    """Whether a sample has both classes and (strict) their x overlap, (sample,)."""
    event, other = (weight > 0) & (y == 1), (weight > 0) & (y == 0)
    both: NDArray[np.bool_] = event.any(1) & other.any(1)
    if not strict:
        return both

    def ends(rows: NDArray[np.bool_]) -> tuple[Array, Array]:
        return np.where(rows, x, np.inf).min(1), np.where(rows, x, -np.inf).max(1)

    (event_low, event_high), (other_low, other_high) = ends(event), ends(other)
    return both & (event_low < other_high) & (other_low < event_high)


def _newton(y: Array, design: Array, offset: Array, w: Array, start: Array) -> Array:
    """Logistic regression of each sample; NaN where Newton's steps do not settle."""
    beta = start.copy()  # (sample, column)
    settled = np.zeros(len(beta), dtype=bool)
    for _ in range(_MAX_STEPS):
        p = special.expit(offset + beta @ design.T)  # (sample, row)
        gradient = (w * (y - p)) @ design
        information = np.einsum("sr,rd,re->sde", w * p * (1 - p), design, design)
        settled = np.abs(gradient).max(1) < _TOLERANCE
        if settled.all():
            break
        ridge = 1e-14 * np.eye(design.shape[1])  # where a step has run into flat tails
        step = np.linalg.solve(information + ridge, gradient[:, :, None])[:, :, 0]
        # From the prevalence a full step seldom overshoots; a bound keeps it from running away.
        step *= np.minimum(1, _LONGEST_STEP / np.maximum(np.abs(step).max(1), 1e-300))[:, None]
        beta = np.where(settled[:, None], beta, beta + step)
    return np.where(settled[:, None], beta, np.nan)
