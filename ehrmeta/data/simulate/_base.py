"""What simulators share: how their data print, and the drawing of sites."""

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from ehrmeta.errors import DataError

Floats = NDArray[np.float64]


class Simulated:
    """Base of the data classes that hold simulated rows and their truth.

    The shape of every array prints in place of thousands of numbers.
    """

    y: object
    groups: object

    def __repr__(self) -> str:
        """Rows, tasks, then a line for every attribute."""
        tasks = len(np.unique(np.asarray(self.groups)))
        head = f"{type(self).__name__}: {len(np.asarray(self.y)):,} rows, {tasks:,} tasks"
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]  # a base of such
        width = max(map(len, names))
        return "\n".join([head, *(f"{n:<{width}}  {_brief(getattr(self, n))}" for n in names)])


def _brief(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} ({', '.join(f'{size:,}' for size in value.shape)})"
    return str(value)


def draw_sites(
    n_sites: int, n_patients: tuple[int, int], random: np.random.Generator
) -> NDArray[np.int64]:
    """The site of every row, (row,); their sizes are uniform between the fewest and the most."""
    if not 1 <= n_patients[0] <= n_patients[1]:
        raise DataError(f"n_patients must be (fewest, most) with 1 <= fewest, got {n_patients}.")
    sizes = random.integers(n_patients[0], n_patients[1] + 1, n_sites)
    return np.repeat(np.arange(n_sites), sizes)
