"""Gradient boosting that counts patients, not rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor

__all__ = ["boost"]

Array = NDArray[np.float64]

_FEWEST_TASKS = 20  # below this nothing is held out
_HELD_OUT = 0.1


def boost(
    x: Array,
    y: Array,
    tasks: NDArray[np.int64],
    n_tasks: int,
    *,
    max_iter: int,
    learning_rate: float,
    max_leaf_nodes: int = 12,
    min_samples_leaf: int = 20,
    seed: int,
) -> HistGradientBoostingRegressor:
    """Fit boosted trees to rows that weigh 1 / rows of their task, stopped on held-out tasks.

    Parameters
    ----------
    x, y, tasks : (row, feature), (row,), (row,)
        NaN in `x` is a value of its own.
    """
    weight = 1.0 / np.bincount(tasks, minlength=n_tasks)[tasks]
    model = HistGradientBoostingRegressor(
        max_iter=max_iter,
        learning_rate=learning_rate,
        max_leaf_nodes=max_leaf_nodes,
        min_samples_leaf=min_samples_leaf,
        early_stopping=False,
        random_state=seed,
    )
    n_held_out = int(_HELD_OUT * n_tasks) if n_tasks >= _FEWEST_TASKS else 0
    test = (np.random.default_rng(seed).permutation(n_tasks) < n_held_out)[tasks]
    x = np.where(np.isnan(x[~test]).all(axis=0), 0.0, x)  # scikit-learn cannot bin empty columns
    if n_held_out == 0:
        return model.fit(x, y, weight)
    return model.set_params(early_stopping=True).fit(
        x[~test],
        y[~test],
        weight[~test],
        X_val=x[test],
        y_val=y[test],
        sample_weight_val=weight[test],
    )
