"""Class labels as the numbers that learners work with, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils.multiclass import check_classification_targets

from ehrmeta.errors import DataError

__all__ = ["Classes"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes of a fitted classifier, sorted; class numbers are positions in `labels`.

    Examples
    --------
    >>> classes = Classes.fit(np.array(["yes", "no", "yes"]))
    >>> classes.forward(np.array(["no", "yes"])).tolist()
    [0.0, 1.0]
    """

    labels: Array  # (class,)

    @classmethod
    def fit(cls, y: Array) -> Classes:
        """The classes in y."""
        try:
            check_classification_targets(y)
        except ValueError as error:
            raise DataError(
                f"{error} A real-valued outcome needs MetaRegressor; numbers that are classes must "
                "be whole."
            ) from error
        labels = np.unique(y)
        if len(labels) < 2:
            raise DataError(
                f"the outcome holds only one class in all {len(y):,} rows: a classifier needs at "
                "least two. Check the column, or the rows that were selected."
            )
        return cls(labels)

    def forward(self, y: Array) -> npt.NDArray[np.float64]:
        """Class numbers (row,)."""
        found = np.searchsorted(self.labels, self._comparable(y)).clip(max=len(self.labels) - 1)
        unknown = self.labels[found] != y
        if unknown.any():
            raise DataError(
                f"the outcome holds classes unseen at fit in {int(unknown.sum()):,} of {len(y):,} "
                f"rows (first: row {int(np.flatnonzero(unknown)[0])}); the model knows "
                f"{len(self.labels)} classes. Map them to known classes or fit again with them."
            )
        return found.astype(np.float64)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe state; `from_dict` restores it exactly."""
        return {"labels": self.labels.tolist(), "dtype": _kind(self.labels)}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Classes:
        """The inverse of `to_dict`."""
        dtype = np.dtype(state["dtype"])
        if dtype.kind not in "biufO":  # a type of fixed width might take any memory
            raise DataError(
                f"class labels of type {state['dtype']!r} are none. Use text or numbers."
            )
        return cls(np.asarray(state["labels"], dtype=dtype))

    def _comparable(self, y: Array) -> Array:
        """Refuse text for numbers and numbers for text."""
        if len(y) and (y.dtype.kind in "OU") != (self.labels.dtype.kind in "OU"):
            expected = "text" if self.labels.dtype.kind in "OU" else "numbers"
            raise DataError(f"the outcome's classes were {expected} at fit. Pass the same labels.")
        return y if len(y) else self.labels[:0]


def _kind(labels: Array) -> str:
    return "object" if labels.dtype.kind in "OU" else str(labels.dtype)
