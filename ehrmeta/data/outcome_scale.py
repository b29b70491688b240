"""Scale of a real-valued outcome: standardisation, transform and range."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ehrmeta.data.columns import refuse_rows
from ehrmeta.data.schema import Transform
from ehrmeta.errors import DataError

_LARGEST_OUTCOME = 1e30  # above, float32 arithmetic overflows
_MOST_SDS = 1e6  # from the training mean: above, adapted networks overflow


@dataclass(frozen=True)
class Warp:
    r"""Logarithm of the distance from one end of a scale, or logit between two ends.

    .. math:: g(y) = \log(1 + (y - l) / c) - \log(1 + (h - y) / c)

    with the lower end l, the upper end h and the offset c; the term of a missing end is left out.
    The larger c, the closer g is to a straight line. The offset makes g finite at the ends, so that
    scores may lie on them. Beyond the ends, g continues as a straight line.

    Parameters
    ----------
    offset : float
        c, positive, in the unit of the outcome.
    low, high : float, optional
        The ends; at least one.

    References
    ----------
    Box, Cox (1964), doi:10.1111/j.2517-6161.1964.tb00553.x (shifted logarithm). Lesaffre,
    Rizopoulos, Tsonaka (2007), doi:10.1093/biostatistics/kxj034 (logit of bounded scores).

    Examples
    --------
    >>> warp = Warp(offset=1.0, low=0.0, high=30.0)
    >>> warp.inverse(warp.forward(np.array([0.0, 29.0, 30.0]))).round(6).tolist()
    [0.0, 29.0, 30.0]
    """

    offset: float
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        ends = [end for end in (self.low, self.high) if end is not None]
        if not (np.isfinite([self.offset, *ends]).all() and self.offset > 0.0 and ends):
            raise DataError("a warp needs a positive offset and at least one finite end.")
        if len(ends) == 2 and ends[0] >= ends[1]:
            raise DataError("the lower end of a warp must be below the upper end.")

    def forward(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Transformed outcomes g(y), of any shape."""
        inside = np.clip(y, self.low, self.high)
        return np.asarray(self._log_ratio(inside) + (y - inside) * np.exp(self.log_slope(inside)))

    def inverse(self, g: NDArray[np.float64]) -> NDArray[np.float64]:
        """Outcomes y of transformed outcomes, of any shape."""
        low, high = self._ends
        inside = np.clip(g, self._log_ratio(low), self._log_ratio(high))
        with np.errstate(over="ignore"):
            if self.low is None:
                y = high - self.offset * np.expm1(-inside)
            elif self.high is None:
                y = low + self.offset * np.expm1(inside)
            else:
                y = low - self.offset + (high - low + 2.0 * self.offset) * special.expit(inside)
        beyond = g - inside
        slope = np.exp(self.log_slope(low if self.high is None else high))  # equal at both ends
        return np.asarray(y + beyond / slope)

    def log_slope(self, y: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Logarithm of the derivative of g: the Jacobian of densities of the outcome."""
        inside = np.clip(y, self.low, self.high)
        low, high = self._ends
        return np.asarray(
            np.log(1.0 / (inside - low + self.offset) + 1.0 / (high - inside + self.offset))
        )

    def __str__(self) -> str:
        return "log" if self.low is None or self.high is None else "logit"

    @property
    def _ends(self) -> tuple[float, float]:
        """The ends, infinite where missing."""
        return -np.inf if self.low is None else self.low, np.inf if self.high is None else self.high

    def _log_ratio(self, y: NDArray[np.float64] | float) -> NDArray[np.float64]:
        above = 0.0 if self.low is None else np.log1p((y - self.low) / self.offset)
        below = 0.0 if self.high is None else np.log1p((self.high - y) / self.offset)
        return np.asarray(above - below)


@dataclass(frozen=True)
class OutcomeScale:
    """Scale of the outcome: ``z = (g(y) - center) / scale``, g identity or a transform.

    The transform is the log, the square root or a `Warp`. `low` and `high` are the ends of the
    outcome's range; `inverse` keeps to it.

    Examples
    --------
    >>> scale = OutcomeScale.fit([1.0, 10.0, 100.0], transform="log")
    >>> scale.inverse(scale.forward([5.0])).round(6).tolist()
    [5.0]
    """

    center: float = 0.0
    scale: float = 1.0
    transform: Transform | Warp | None = None
    name: str = "y"
    low: float | None = None
    high: float | None = None

    @classmethod
    def fit(
        cls,
        y: Any,
        transform: Transform | Warp | None = None,
        name: str = "y",
        *,
        low: float | None = None,
        high: float | None = None,
    ) -> OutcomeScale:
        """Fit mean and standard deviation after the transform; a constant has scale 1."""
        g = _apply(y, transform, name)
        if len(g) == 0:
            raise DataError(f"outcome '{name}' has no rows. Pass at least one.")
        if np.abs(g).max() > _LARGEST_OUTCOME:
            raise DataError(
                f"outcome '{name}' exceeds {_LARGEST_OUTCOME:g} in size. Check its unit."
            )
        sd = float(np.std(g)) if np.ptp(g) > 0 else 0.0
        return cls(float(np.mean(g)), sd or 1.0, transform, name, low, high)

    def forward(self, y: Any) -> NDArray[np.float64]:
        """Outcome to learner's scale, (row,); raises beyond a million standard deviations."""
        z = (_apply(y, self.transform, self.name) - self.center) / self.scale
        what = f"outcome '{self.name}' is over {_MOST_SDS:g} standard deviations from the mean"
        refuse_rows(np.abs(z) > _MOST_SDS, what, "Check its unit, or drop these rows.")
        return z

    def inverse(self, z: Any) -> NDArray[np.float64]:
        """Learner's scale to outcome, of any shape; monotone, so it maps quantiles to quantiles."""
        g = np.asarray(z, dtype=np.float64) * self.scale + self.center
        if self.transform == "log":
            with np.errstate(over="ignore"):
                return self.clip(np.exp(g))
        if isinstance(self.transform, Warp):
            return self.clip(self.transform.inverse(g))
        return self.clip(np.maximum(g, 0.0) ** 2 if self.transform == "sqrt" else g)

    def clip(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Outcomes with those beyond an end of the range moved to it."""
        return y if self.low is None and self.high is None else np.clip(y, self.low, self.high)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe values for `from_dict`."""
        values = dataclasses.asdict(self)
        ends = ("low", "high")
        return {name: v for name, v in values.items() if v is not None or name not in ends}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OutcomeScale:
        """Restore a scale from `to_dict`."""
        transform = values["transform"]
        warp = {"transform": Warp(**transform)} if isinstance(transform, Mapping) else {}
        return cls(**{**values, **warp})


def _apply(y: Any, transform: Transform | Warp | None, name: str) -> NDArray[np.float64]:
    values = np.asarray(y, dtype=np.float64)
    what = f"outcome '{name}' is missing (NaN) or infinite (inf)"
    refuse_rows(~np.isfinite(values), what, "Drop those rows.")
    if transform is None:
        return values
    if isinstance(transform, Warp):
        return transform.forward(values)
    outside = values <= 0 if transform == "log" else values < 0
    sign = "zero or negative" if transform == "log" else "negative"
    remedy = f"The {transform} does not exist: drop these rows or choose another transform."
    refuse_rows(outside, f"outcome '{name}' is {sign}", remedy)
    return np.log(values) if transform == "log" else np.sqrt(values)
