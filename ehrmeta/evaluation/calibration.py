"""Calibration of risks: smoothed curve, integrated calibration index and recalibration."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ehrmeta.evaluation.discrimination import read_binary
from ehrmeta.evaluation.metrics import Array, finite

FRAC = 2 / 3  # as in rms::val.prob
_POINTS = 500
_MAX_STEPS, _LONGEST_STEP, _TOLERANCE = 100, 4.0, 1e-10
_CHUNK = 1_000_000  # (point, row) cells computed at once
_BISECTIONS = 60  # enough for float64 precision


def smooth_calibration_curve(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    at: ArrayLike | None = None,
    frac: float = FRAC,
    sample_weight: ArrayLike | None = None,
) -> Array:
    """Smoothed share of events as a function of the risk, by lowess as in ``rms::val.prob``.

    With few rows the curve may slightly exceed 0 or 1.

    Parameters
    ----------
    y_true, y_prob : (row,)
        Outcomes, 0 or 1, and risks.
    at : (point,), optional
        Risks at which to evaluate the curve; by default those of the rows.
    frac : float
        Share of the rows used at each point.
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
    return _lowess(p[counts], y[counts], at=where, frac=frac, weight=weight[counts])


def calibration_index(y: Array, p: Array, weight: Array) -> Array:
    """Integrated calibration index (ICI): mean distance of risks from `smooth_calibration_curve`.

    With more than 500 distinct risks, the curve is interpolated between 250 quantiles and 250
    equidistant points. The error is about 1e-6 for most risks, and 1e-5 where risks are dense.

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
    index = np.empty(len(weight))
    for number, w in enumerate(weight):
        rows = w > 0
        curve = _lowess(p[rows], y[rows], at=at, frac=FRAC, weight=w[rows])
        index[number] = w @ np.abs(np.interp(p, at, curve) - p) / w.sum()
    return index


def recalibrate(y: Array, p: Array, weight: Array, *, with_slope: bool) -> Array:
    r"""Regress outcomes on the logits of their risks, by Newton's method.

    :math:`\mathrm{logit}\, P(y = 1) = a + b\, \mathrm{logit}(p)`, with b = 1 unless `with_slope`.

    Parameters
    ----------
    y, p : (row,)
        Outcomes, 0 or 1, and risks.
    weight : (sample, row)
        Each sample is fitted separately.
    with_slope : bool
        Whether to estimate b as well.

    Returns
    -------
    (sample, 2)
        Intercept a and slope b. They are NaN if there is no finite estimate: with only one class or
        risks of exactly 0 or 1 and, for the slope, if all risks are equal or separate the classes.

    Examples
    --------
    >>> y, p = np.array([0, 1, 1, 1]), np.full(4, 0.5)
    >>> recalibrate(y, p, np.ones((1, 4)), with_slope=False).round(4)  # log 3
    array([[1.0986, 1.    ]])
    """
    logit = special.logit(p)
    line = np.full((len(weight), 2), np.nan)
    if not np.all(np.isfinite(logit)):
        return line
    fits = _overlap(y, logit if with_slope else np.zeros_like(logit), weight, strict=with_slope)
    if not fits.any():
        return line
    w = weight[fits] / weight[fits].sum(1, keepdims=True)
    prevalence = special.logit(w @ y)
    if with_slope:
        center = logit.mean()
        design = np.column_stack([np.ones_like(logit), logit - center])
        start = np.column_stack([prevalence, np.zeros_like(prevalence)])
        fit = _newton(y, design, np.zeros_like(logit), w, start)
        line[fits] = np.column_stack([fit[:, 0] - center * fit[:, 1], fit[:, 1]])
    else:
        start = prevalence - special.logit(w @ p)
        fit = _newton(y, np.ones((len(y), 1)), logit, w, start[:, None])
        line[fits] = np.column_stack([fit[:, 0], np.ones(len(fit))])
    return line


def _overlap(y: Array, x: Array, weight: Array, *, strict: bool) -> NDArray[np.bool_]:
    """Whether a sample has both classes and, if strict, the classes overlap in x, (sample,)."""
    event, other = (weight > 0) & (y == 1), (weight > 0) & (y == 0)
    both: NDArray[np.bool_] = event.any(1) & other.any(1)
    if not strict:
        return both

    def ends(rows: NDArray[np.bool_]) -> tuple[Array, Array]:
        return np.where(rows, x, np.inf).min(1), np.where(rows, x, -np.inf).max(1)

    (event_low, event_high), (other_low, other_high) = ends(event), ends(other)
    return both & (event_low < other_high) & (other_low < event_high)


def _newton(y: Array, design: Array, offset: Array, w: Array, start: Array) -> Array:
    """Logistic regression of each sample; NaN if Newton's method does not converge."""
    beta = start.copy()  # (sample, column)
    settled = np.zeros(len(beta), dtype=bool)
    for _ in range(_MAX_STEPS):
        p = special.expit(offset + beta @ design.T)  # (sample, row)
        gradient = (w * (y - p)) @ design
        information = np.einsum("sr,rd,re->sde", w * p * (1 - p), design, design)
        settled = np.abs(gradient).max(1) < _TOLERANCE
        if settled.all():
            break
        ridge = 1e-14 * np.eye(design.shape[1])  # for flat tails
        step = np.linalg.solve(information + ridge, gradient[:, :, None])[:, :, 0]
        # Starting at the prevalence, full steps rarely overshoot; the bound prevents divergence.
        step *= np.minimum(1, _LONGEST_STEP / np.maximum(np.abs(step).max(1), 1e-300))[:, None]
        beta = np.where(settled[:, None], beta, beta + step)
    return np.where(settled[:, None], beta, np.nan)


def _lowess(
    x: Array, y: Array, *, at: Array, frac: float = FRAC, weight: Array | None = None
) -> Array:
    r"""Lowess without robustness steps, as ``lowess(x, y, iter = 0)`` in R, (point,).

    The value at a point t is that of a weighted least-squares line through the nearest rows, which
    have a share `frac` of the total weight. The weights are :math:`w_i (1 - |x_i - t|^3 / r^3)^3`,
    with r the distance of the farthest of these rows.

    References
    ----------
    Cleveland (1979), doi:10.1080/01621459.1979.10481038.

    Examples
    --------
    >>> x = np.linspace(0, 1, 20)
    >>> _lowess(x, 2 * x, at=np.array([0.25, 0.9])).round(6)  # a line stays a line
    array([0.5, 1.8])
    """
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    weight = np.ones_like(x) if weight is None else weight[order]
    radius = _radius(x, weight, at, frac)
    parts = np.array_split(np.arange(len(at)), -(-len(at) * len(x) // _CHUNK))
    return np.concatenate([_lines(x, y, weight, at[part], radius[part]) for part in parts])


def _radius(x: Array, weight: Array, at: Array, frac: float) -> Array:
    """Distance within which each point has `frac` of the weight, by bisection, (point,)."""
    total = np.concatenate([[0.0], np.cumsum(weight)])
    needed = max(1, int(frac * len(x) + 1e-10)) / len(x) * total[-1] * (1 - 1e-12)
    low, high = np.zeros(len(at)), np.maximum(x[-1] - at, at - x[0])
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        ends = np.searchsorted(x, at + middle, side="right")
        enough = total[ends] - total[np.searchsorted(x, at - middle, side="left")] >= needed
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.asarray(high, np.float64)


def _lines(x: Array, y: Array, weight: Array, at: Array, radius: Array) -> Array:
    """Value of the local line at each point; the local mean if x is nearly constant."""
    span = x[-1] - x[0]
    distance = x - at[:, None]  # (point, row)
    # Rows at the point keep their full weight if the radius is 0, as with tied x.
    u = np.abs(distance) / np.maximum(radius, 1e-12 * max(span, 1.0))[:, None]
    kernel = weight * np.maximum(1 - u**3, 0.0) ** 3
    kernel /= kernel.sum(1, keepdims=True)
    center, mean_y = (kernel * distance).sum(1), kernel @ y
    centred = distance - center[:, None]
    spread = (kernel * centred**2).sum(1)
    slope = np.zeros_like(spread)
    varies = np.sqrt(spread) > 0.001 * span
    np.divide((kernel * centred) @ y, spread, out=slope, where=varies)
    fitted: Array = mean_y - slope * center
    return fitted
