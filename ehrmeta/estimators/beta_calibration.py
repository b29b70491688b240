"""Probabilities as they should have been: beta calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special
from sklearn.linear_model import LogisticRegression

__all__ = ["BetaCalibration"]

Array = npt.NDArray[np.float64]

_CLIP = 1e-6
_INVERSE_PENALTY = 1e3  # keeps separated classes finite


@dataclass(frozen=True)
class BetaCalibration:
    r"""A map of probabilities with three parameters.

    .. math:: \mathrm{logit}\, q = a \log p - b \log(1 - p) + c, \qquad a, b \ge 0

    The identity has a = b = 1 and c = 0; a = b is logistic recalibration.

    References
    ----------
    Kull, Silva Filho, Flach (2017), http://proceedings.mlr.press/v54/kull17a.html.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> p = rng.uniform(size=20_000)
    >>> happened = rng.uniform(size=20_000) < p**2
    >>> found = BetaCalibration.of(p, happened, np.ones(20_000))
    >>> found.at(np.array([0.25, 0.5, 0.75])).round(1)
    array([0.1, 0.2, 0.6])
    """

    a: float
    b: float
    c: float

    @classmethod
    def of(cls, p: Array, happened: npt.NDArray[np.bool_], weight: Array) -> BetaCalibration:
        """Fit to probabilities, what happened, and weights, (row,) each.

        A coefficient that comes out negative is left out, and the other fitted again.
        """
        design, used = _design(p), [0, 1]
        coefficients = np.zeros(2)
        while used:
            model = LogisticRegression(C=_INVERSE_PENALTY, tol=1e-8, max_iter=1000)
            model.fit(design[:, used], happened, sample_weight=weight)
            coefficients[:], fitted = 0.0, model.coef_[0]
            coefficients[used] = fitted
            if fitted.min() >= 0.0:
                break
            used.remove(used[int(fitted.argmin())])
        else:  # the probabilities say nothing
            share = np.average(happened, weights=weight)
            return cls(0.0, 0.0, float(special.logit(share)))
        return cls(float(coefficients[0]), float(coefficients[1]), float(model.intercept_[0]))

    def at(self, p: Array) -> Array:
        """Calibrated probabilities, (row,)."""
        return np.asarray(special.expit(_design(p) @ [self.a, self.b] + self.c))


def _design(p: Array) -> Array:
    p = np.clip(p, _CLIP, 1.0 - _CLIP)
    return np.column_stack([np.log(p), -np.log1p(-p)])
