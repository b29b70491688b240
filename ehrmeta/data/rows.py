"""Some rows of any table."""

from __future__ import annotations

from typing import Any

import narwhals as nw
import numpy as np
import numpy.typing as npt

from ehrmeta.errors import DataError

__all__ = ["check_mask", "take_rows"]


def take_rows(X: Any, mask: npt.NDArray[np.bool_]) -> Any:
    """The rows of a frame, array or list where the mask (row,) is true, in its own type.

    Examples
    --------
    >>> import numpy as np
    >>> take_rows([[1], [2], [3]], np.array([True, False, True]))
    array([[1],
           [3]])
    """
    frame = nw.from_native(X, eager_only=True, pass_through=True)
    if isinstance(frame, nw.DataFrame):
        taken = frame[np.flatnonzero(mask)].to_native()
        if getattr(X, "attrs", None):
            taken.attrs = dict(X.attrs)
        return taken
    return np.asarray(X)[mask]


def check_mask(rows: npt.ArrayLike, n_rows: int) -> npt.NDArray[np.bool_]:
    """Return rows as a mask (row,); anything but one bool per row raises."""
    mask = np.asarray(rows)
    if mask.dtype != bool or mask.shape != (n_rows,):
        raise DataError(f"pass a mask of shape ({n_rows},): one bool per row.")
    return mask
