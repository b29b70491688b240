"""Simulated patients of any number, as float32."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Patients", "simulate_patients"]


class Patients(NamedTuple):
    """Rows of patients whose outcome is a line with their own intercept and slopes."""

    X: npt.NDArray[np.float32]  # (row, feature)
    y: npt.NDArray[np.float32]  # (row,)
    groups: npt.NDArray[np.int64]  # (row,)


def simulate_patients(
    sizes: npt.NDArray[np.int64], n_features: int = 10, seed: int = 0
) -> Patients:
    """Patients with so many rows each; ``y = a + (b + b0) . x + noise``.

    Examples
    --------
    >>> simulate_patients(np.array([2, 3])).groups
    array([0, 0, 1, 1, 1])
    """
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    X = random.standard_normal((len(groups), n_features), dtype=np.float32)
    population = random.standard_normal(n_features, dtype=np.float32)
    y = X @ population + 0.5 * random.standard_normal(len(groups), dtype=np.float32)
    y += random.standard_normal(len(sizes), dtype=np.float32)[groups]
    for feature in range(n_features):
        own = 0.3 * random.standard_normal(len(sizes), dtype=np.float32)
        y += own[groups] * X[:, feature]
    return Patients(X, y, groups)
