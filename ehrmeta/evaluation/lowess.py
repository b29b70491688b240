"""Cleveland's smoother: local lines with tricube weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["lowess"]

Array = NDArray[np.float64]

_CHUNK = 1_000_000  # (point, row) cells at a time
_BISECTIONS = 60  # halve the widest radius to the last digit


def lowess(
    x: Array, y: Array, *, at: Array, frac: float = 2 / 3, weight: Array | None = None
) -> Array:
    r"""Smooth y over x without robustness steps, as ``lowess(x, y, iter = 0)`` in R does.

    At a point t it is the weighted least-squares line through the nearest `frac` of the rows with
    weights :math:`w_i (1 - |x_i - t|^3 / r^3)^3`, r the distance of the farthest of them.

    Parameters
    ----------
    x, y : (row,)
    at : (point,)
        Where to evaluate.
    frac : float
        Share of the rows (of their weight) that a line rests on.
    weight : (row,), optional
        Equal by default.

    Returns
    -------
    (point,)

    References
    ----------
    Cleveland (1979), doi:10.1080/01621459.1979.10481038.

    Examples
    --------
    >>> x = np.linspace(0, 1, 20)
    >>> lowess(x, 2 * x, at=np.array([0.25, 0.9])).round(6)  # a line stays a line
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
    radius: Array = high
    return radius


def _lines(x: Array, y: Array, weight: Array, at: Array, radius: Array) -> Array:
    """Value of the local line at each point; the local mean where x hardly varies."""
    span = x[-1] - x[0]
    away = x - at[:, None]  # (point, row)
    # Rows at the point itself count fully even where the radius is 0, as among tied x.
    u = np.abs(away) / np.maximum(radius, 1e-12 * max(span, 1.0))[:, None]
    kernel = weight * np.maximum(1 - u**3, 0.0) ** 3
    kernel /= kernel.sum(1, keepdims=True)
    mean_away, mean_y = (kernel * away).sum(1), kernel @ y
    centred = away - mean_away[:, None]
    spread = (kernel * centred**2).sum(1)
    slope = np.zeros_like(spread)
    varies = np.sqrt(spread) > 0.001 * span
    np.divide((kernel * centred) @ y, spread, out=slope, where=varies)
    fitted: Array = mean_y - slope * mean_away
    return fitted
