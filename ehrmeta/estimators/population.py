"""A population model of any kind, cross-fitted, below a meta-learner that adapts what is left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import RegressorMixin, clone
from sklearn.model_selection import GroupKFold
from sklearn.utils.validation import has_fit_parameter

from ehrmeta.errors import GroupError
from ehrmeta.nn.task_rows import TaskRows

__all__ = ["cross_fit_population", "with_offset"]

Array = npt.NDArray[np.float64]

_N_FOLDS = 5


def cross_fit_population(
    population: RegressorMixin, rows: TaskRows
) -> tuple[RegressorMixin, TaskRows]:
    """Fit a population model, and put its predictions for unseen tasks into the training rows.

    Every row's offset comes from a model that was fitted without the row's task, so that the
    meta-learner sees the errors that the model makes on new tasks; the model returned, for these,
    is fitted to all. Each task weighs the same where the model takes `sample_weight`. Measured
    features are left out: at prediction time they are known only through the support.

    Parameters
    ----------
    population : regressor
        Any scikit-learn regressor; it is cloned.
    rows : TaskRows
        Of the training tasks.

    Raises
    ------
    GroupError
        There is one task only.
    """
    if rows.n_tasks < 2:
        raise GroupError(
            "population= needs two tasks or more, to predict each by a model that has not seen it. "
            "Pass groups=, or leave population= out."
        )
    x, y, codes = _features(rows), rows.y.double().numpy(), rows.codes.numpy()
    weight = 1.0 / rows.sizes.numpy()[codes]
    offset = np.empty(len(y))
    for seen, unseen in GroupKFold(min(_N_FOLDS, rows.n_tasks)).split(x, y, codes):
        offset[unseen] = _fitted(population, x[seen], y[seen], weight[seen]).predict(x[unseen])
    return _fitted(population, x, y, weight), _replaced(rows, offset)


def with_offset(population: RegressorMixin, rows: TaskRows) -> TaskRows:
    """The rows with the predictions of a fitted population model as their offset."""
    if rows.n_rows == 0:
        return rows
    return _replaced(rows, population.predict(_features(rows)))


def _fitted(population: RegressorMixin, x: Array, y: Array, weight: Array) -> RegressorMixin:
    given = {"sample_weight": weight} if has_fit_parameter(population, "sample_weight") else {}
    return clone(population).fit(x, y, **given)


def _features(rows: TaskRows) -> Array:
    """Encoded features known at the row; a constant where there is none."""
    x = rows.x.double().numpy()
    return x if x.shape[1] else np.zeros((rows.n_rows, 1))


def _replaced(rows: TaskRows, offset: Array) -> TaskRows:
    return replace(rows, offset=torch.from_numpy(np.asarray(offset)).to(rows.y.dtype))
