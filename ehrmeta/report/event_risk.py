"""Outcomes and risks of a fitted classifier, for the displays of risks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ehrmeta.errors import DataError

__all__ = ["event_risk"]

Array = NDArray[np.float64]


def event_risk(estimator: Any, X: Any, y: Any, predict: dict[str, Any]) -> tuple[Array, Array]:
    """Whether the second class happened, and its predicted probability, each (row,).

    Parameters
    ----------
    estimator : fitted or adapted classifier
    X, y : (row, feature), (row,)
    predict : dict
        Further arguments of ``predict_proba``: groups, time.
    """
    p = np.asarray(estimator.predict_proba(X, **predict), np.float64)
    if p.ndim != 2 or p.shape[1] != 2:
        raise DataError(f"predict_proba gives shape {p.shape}; a risk needs two classes.")
    event = getattr(estimator, "classes_", np.array([0, 1]))[1]
    return (np.asarray(y) == event).astype(np.float64), p[:, 1]
