"""Base class of simulated data, and random site sizes."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ehrmeta.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class Simulated:
    """Base of simulated data: rows of many tasks, and the true parameters.

    Attributes
    ----------
    X : ndarray, (row, feature)
    y : ndarray, (row,)
    groups : ndarray of int64, (row,)
        Task of every row; rows are sorted by task and time.
    """

    X: Floats
    y: NDArray[Any]
    groups: NDArray[np.int64]

    def __repr__(self) -> str:
        """Numbers of rows and tasks, and the type and shape of every attribute."""
        lines = [f"{type(self).__name__}: {len(self.y):,} rows, {len(set(self.groups)):,} tasks"]
        width = max(len(field.name) for field in fields(self))
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                value = f"{value.dtype} ({', '.join(f'{size:,}' for size in value.shape)})"
            lines.append(f"{field.name:<{width}}  {value}")
        return "\n".join(lines)


def draw_sites(
    n_sites: int, n_patients: tuple[int, int], random: np.random.Generator
) -> NDArray[np.int64]:
    """Site of every row, (row,), with site sizes uniform between the two of `n_patients`."""
    if not 1 <= n_patients[0] <= n_patients[1]:
        raise DataError(f"n_patients must be (fewest, most) with 1 <= fewest, got {n_patients}.")
    sizes = random.integers(n_patients[0], n_patients[1] + 1, n_sites)
    return np.repeat(np.arange(n_sites), sizes)
