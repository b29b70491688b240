"""What the scores of risks take: two classes, and the probability of the second."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ehrmeta.errors import DataError
from ehrmeta.evaluation.metrics import finite

__all__ = ["BinaryRisk", "read_binary", "read_weight"]

Array = NDArray[np.float64]


class BinaryRisk(NamedTuple):
    """Checked outcomes and risks, each (row,)."""

    y: Array  # 0 or 1
    p: Array  # from 0 to 1
    weight: Array

    @property
    def has_both_classes(self) -> bool:
        """Rows that count hold events and non-events."""
        return len(np.unique(self.y[self.weight > 0])) == 2


def read_binary(
    y_true: ArrayLike, y_prob: ArrayLike, sample_weight: ArrayLike | None = None
) -> BinaryRisk:
    """Check outcomes, risks and weights: one row of each per patient.

    Parameters
    ----------
    y_true : (row,)
        False or True, 0 or 1 (the event).
    y_prob : (row,)
        Predicted probability of the event.
    sample_weight : (row,), optional
        1 by default; rows of weight 0 do not count.

    Raises
    ------
    DataError
        No row, different lengths, NaN, an outcome other than 0 and 1, a probability outside
        0 to 1, a negative weight, or weights of 0 only.
    """
    y, p = finite("y_true", y_true), finite("y_prob", y_prob)
    if y.ndim != 1 or y.shape != p.shape or len(y) == 0:
        raise DataError(
            f"y_true {y.shape} and y_prob {p.shape} must hold one value for each of the same rows. "
            "Of predict_proba pass the column of the event."
        )
    other = int(np.count_nonzero((y != 0) & (y != 1)))
    if other:
        raise DataError(
            f"y_true is neither 0 nor 1 in {other} of {len(y)} rows. Code the event as 1, all "
            "else as 0."
        )
    outside = int(np.count_nonzero((p < 0) | (p > 1)))
    if outside:
        raise DataError(
            f"y_prob lies outside 0 to 1 in {outside} of {len(p)} rows. Pass probabilities, no "
            "logits or percentages."
        )
    return BinaryRisk(y, p, read_weight(sample_weight, len(y)))


def read_weight(sample_weight: ArrayLike | None, n_rows: int) -> Array:
    """Check weights, (row,); 1 each by default."""
    weight = np.ones(n_rows) if sample_weight is None else finite("sample_weight", sample_weight)
    if weight.shape != (n_rows,):
        raise DataError(f"sample_weight has shape {weight.shape}, the outcomes ({n_rows},).")
    negative = int(np.count_nonzero(weight < 0))
    if negative:
        raise DataError(f"sample_weight is negative in {negative} of {n_rows} rows.")
    if not np.any(weight > 0):
        raise DataError(f"sample_weight is 0 in all {n_rows} rows: nothing is left to score.")
    return weight
