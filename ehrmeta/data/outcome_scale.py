"""The outcome on the scale that a model works on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ehrmeta.data.roles import Transform
from ehrmeta.errors import DataError

__all__ = ["OutcomeScale"]

_LARGEST_OUTCOME = 1e30  # beyond it float32 arithmetic overflows
_MOST_SDS = 1e6  # from the training rows: further off the adapted networks overflow


@dataclass(frozen=True)
class OutcomeScale:
    """Standardise the outcome: ``z = (g(y) - center) / scale`` with g the log, square root or none.

    Examples
    --------
    >>> scale = OutcomeScale.fit([1.0, 10.0, 100.0], transform="log")
    >>> scale.inverse(scale.forward([5.0])).round(6).tolist()
    [5.0]
    """

    center: float = 0.0
    scale: float = 1.0
    transform: Transform | None = None
    name: str = "y"

    @classmethod
    def fit(cls, y: Any, transform: Transform | None = None, name: str = "y") -> OutcomeScale:
        """Learn mean and standard deviation after the transform; a constant keeps scale 1."""
        g = _apply(y, transform, name)
        if len(g) == 0:
            raise DataError(f"outcome '{name}' has no rows. Pass at least one.")
        if np.abs(g).max() > _LARGEST_OUTCOME:
            raise DataError(
                f"outcome '{name}' exceeds {_LARGEST_OUTCOME:g} in size, which no lab value does. "
                "Check its unit."
            )
        sd = float(np.std(g)) if np.ptp(g) > 0 else 0.0
        return cls(float(np.mean(g)), sd or 1.0, transform, name)

    def forward(self, y: Any) -> NDArray[np.float64]:
        """Outcome to model scale, (row,); refuses what lies a million standard deviations off."""
        z = (_apply(y, self.transform, self.name) - self.center) / self.scale
        n_far = int(np.count_nonzero(np.abs(z) > _MOST_SDS))
        if n_far:
            raise DataError(
                f"outcome '{self.name}' lies more than {_MOST_SDS:g} standard deviations from the "
                f"training rows in {n_far} of {len(z)} rows. Check its unit, or leave those rows "
                "out."
            )
        return z

    def inverse(self, z: Any) -> NDArray[np.float64]:
        """Model scale to outcome, any shape. Monotone, so that it maps quantiles to quantiles."""
        g = np.asarray(z, dtype=np.float64) * self.scale + self.center
        if self.transform == "log":
            with np.errstate(over="ignore"):
                return np.exp(g)
        return np.maximum(g, 0.0) ** 2 if self.transform == "sqrt" else g

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-safe values; `from_dict` restores the scale exactly."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OutcomeScale:
        """Restore a scale from `to_dict`."""
        return cls(**values)


def _apply(y: Any, transform: Transform | None, name: str) -> NDArray[np.float64]:
    values = np.asarray(y, dtype=np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        raise DataError(
            f"outcome '{name}' is missing (NaN) or infinite (inf) in {int(bad.sum())} of "
            f"{values.size} rows. Drop those rows."
        )
    if transform is None:
        return values
    outside = values <= 0 if transform == "log" else values < 0
    if outside.any():
        words = "zero or negative" if transform == "log" else "negative"
        raise DataError(
            f"outcome '{name}' is {words} in {int(outside.sum())} of {values.size} rows, where "
            f"{transform} does not exist. Drop those rows or choose another transform."
        )
    return np.log(values) if transform == "log" else np.sqrt(values)
