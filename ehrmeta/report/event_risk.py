"""Outcomes and risks of a fitted classifier, for the displays of risks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ehrmeta.errors import DataError
from ehrmeta.estimators import Adapted

__all__ = ["event_risk", "name_of"]

Array = NDArray[np.float64]


def event_risk(estimator: Any, X: Any, y: Any, predict: dict[str, Any]) -> tuple[Array, Array]:
    """Whether the second class happened, and its predicted probability, each (row,).

    Parameters
    ----------
    estimator : fitted or adapted classifier
    X, y : (row, feature), (row,)
    predict : dict
        Further arguments of ``predict_proba``: groups, time.

    Raises
    ------
    DataError
        More or fewer than two classes, or outcomes that are neither.
    """
    p = np.asarray(estimator.predict_proba(X, **predict), np.float64)
    if p.ndim != 2 or p.shape[1] != 2:
        raise DataError(f"predict_proba gives shape {p.shape}; a risk needs two classes.")
    fitted = estimator.model if isinstance(estimator, Adapted) else estimator
    classes, y = np.asarray(fitted.classes_), np.asarray(y)
    unknown = int(np.count_nonzero(~np.isin(y, classes)))
    if unknown:
        raise DataError(
            f"y holds classes unseen at fit in {unknown} of {len(y)} rows. Pass the labels of fit."
        )
    return (y == classes[1]).astype(np.float64), p[:, 1]


def name_of(estimator: Any) -> str:
    """What a legend calls an estimator."""
    return type(estimator.model if isinstance(estimator, Adapted) else estimator).__name__
