"""A population model of any kind, cross-fitted, below a meta-learner that adapts what is left."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy import special
from sklearn.base import clone, is_classifier
from sklearn.model_selection import GroupKFold
from sklearn.utils.validation import has_fit_parameter

from ehrmeta.errors import DataError, GroupError
from ehrmeta.nn.task_rows import TaskRows

__all__ = ["cross_fit_population", "with_offset"]

Array = npt.NDArray[np.float64]
Population: TypeAlias = Any  # sklearn's regressors and classifiers declare no fit or predict

_N_FOLDS = 5
_LEAST_PROBABILITY = 1e-5  # trees may say 0, whose logit is infinite


def cross_fit_population(population: Population, rows: TaskRows) -> tuple[Population, TaskRows]:
    """Fit a population model, and put its predictions for unseen tasks into the training rows.

    Every row's offset comes from a model that was fitted without the row's task, so that the
    meta-learner sees the errors that the model makes on new tasks; the model returned, for these,
    is fitted to all. A regressor's offset is its prediction, a classifier's the logit of its
    probability. Each task weighs the same where a regressor takes `sample_weight`; a classifier
    counts every row, or as its `class_weight` says. Measured features are left out: at prediction
    time they are known only through the support.

    Parameters
    ----------
    population : regressor or classifier
        Any of scikit-learn; it is cloned.
    rows : TaskRows
        Of the training tasks.

    Raises
    ------
    GroupError
        There is one task only.
    DataError
        A classifier has more than two classes, or only one outside some tasks.
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
        fitted = _fitted(population, x[seen], y[seen], weight[seen])
        offset[unseen] = _offset(fitted, x[unseen])
    return _fitted(population, x, y, weight), _replaced(rows, offset)


def with_offset(population: Population, rows: TaskRows) -> TaskRows:
    """The rows with the predictions of a fitted population model as their offset."""
    if rows.n_rows == 0:
        return rows
    return _replaced(rows, _offset(population, _features(rows)))


def _offset(fitted: Population, x: Array) -> Array:
    if not is_classifier(fitted):
        return np.asarray(fitted.predict(x))
    p = fitted.predict_proba(x)[:, 1]
    return np.asarray(special.logit(np.clip(p, _LEAST_PROBABILITY, 1.0 - _LEAST_PROBABILITY)))


def _fitted(population: Population, x: Array, y: Array, weight: Array) -> Population:
    if is_classifier(population):
        classes = np.unique(y)
        if len(classes) != 2:
            raise DataError(
                f"population= needs two classes in every part of the training tasks, got "
                f"{len(classes)}. Leave population= out, or train on more tasks."
            )
        return clone(population).fit(x, y.astype(np.int64))
    given = {"sample_weight": weight} if has_fit_parameter(population, "sample_weight") else {}
    return clone(population).fit(x, y, **given)


def _features(rows: TaskRows) -> Array:
    """Encoded features known at the row; a constant where there is none."""
    x = rows.x.double().numpy()
    return x if x.shape[1] else np.zeros((rows.n_rows, 1))


def _replaced(rows: TaskRows, offset: Array) -> TaskRows:
    return replace(rows, offset=torch.from_numpy(np.asarray(offset)).to(rows.y.dtype))
