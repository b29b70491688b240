"""How simulated data print: the shape of every array in place of thousands of numbers."""

from dataclasses import fields

import numpy as np


class Simulated:
    """Base of the data classes that hold simulated rows and their truth."""

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
