"""A population model of any kind, cross-fitted, below a meta-learner that adapts what is left."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy import special
from sklearn.base import clone, is_classifier
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold
from sklearn.utils.validation import has_fit_parameter

from ehrmeta.errors import DataError, GroupError
from ehrmeta.nn.batch import TaskRows
from ehrmeta.persistence.sklearn_models import TreeSum

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Population: TypeAlias = Any  # sklearn's regressors and classifiers declare no fit or predict

_N_FOLDS = 5
_LEAF_SIZES = (5, 20)
_FEWEST_TASKS = 20  # below this too few to judge an addition by
_LEAST_PROBABILITY = 1e-5  # trees may say 0, whose logit is infinite


def cross_fit_population(population: Population, rows: TaskRows) -> tuple[Population, TaskRows]:
    """Fit a population model, and put its predictions for unseen tasks into the training rows.

    Every row's offset comes from a model that was fitted without the row's task, so that the
    meta-learner sees the errors that the model makes on new tasks; the model returned, for these,
    is fitted to all. A regressor's offset is its prediction, a classifier's the logit of its
    probability. Each task weighs the same where a regressor takes `sample_weight`; a classifier
    counts every row, or as its `class_weight` says. A `HistGradientBoostingRegressor` that is left
    to stop by itself grows as many trees as predict unseen tasks best. Measured features are left
    out: at prediction time they are known only through the support.

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
    fitted, offset = _cross_fit(population, x, y, codes)
    return fitted, _replaced(rows, offset)


def add_where_it_helps(
    addition: HistGradientBoostingRegressor, rows: TaskRows
) -> tuple[TreeSum | None, TaskRows]:
    """Cross-fit boosted trees to lie below a linear mean, where they help tasks held out in turn.

    They are the mean of two models, whose errors differ: trees of what a ridge regression leaves
    and trees of the outcome itself. How many trees, and of how small leaves, is what predicts
    unseen tasks best. With half of the ridge regression they must lower its squared error by more
    than one paired standard error.

    Parameters
    ----------
    addition : HistGradientBoostingRegressor
        Cloned.
    rows : TaskRows
        Of the training tasks.

    Returns
    -------
    model, rows
        The trees and the rows with their predictions as offset, whose linear mean remains to be
        found; None and the rows as they are where trees do not help.
    """
    if rows.n_tasks < _FEWEST_TASKS or not rows.x.shape[1]:
        return None, rows
    x, y, codes = _features(rows), rows.y.double().numpy(), rows.codes.numpy()
    linear = _cross_fit(Ridge(), x, y, codes)[1]
    after, after_offset = _boosted(addition, x, y - linear, codes, leaf_sizes=_LEAF_SIZES)
    alone, alone_offset = _boosted(addition, x, y, codes, leaf_sizes=_LEAF_SIZES)
    offset = 0.5 * (after_offset + alone_offset)
    residual, residual_of_both = y - linear, y - 0.5 * linear - offset
    gain = np.bincount(codes, _weight(codes) * (residual**2 - residual_of_both**2))
    if gain.mean() <= gain.std(ddof=1) / np.sqrt(len(gain)):
        return None, rows
    return TreeSum.mean([after, alone]), _replaced(rows, offset)


def with_offset(population: Population, rows: TaskRows) -> TaskRows:
    """The rows with the predictions of a fitted population model added to their offset."""
    if rows.n_rows == 0:
        return rows
    return _replaced(rows, rows.offset.numpy() + _offset(population, _features(rows)))


def _offset(fitted: Population, x: Array) -> Array:
    if not is_classifier(fitted):
        return np.asarray(fitted.predict(x))
    p = fitted.predict_proba(x)[:, 1]
    return np.asarray(special.logit(np.clip(p, _LEAST_PROBABILITY, 1.0 - _LEAST_PROBABILITY)))


def _cross_fit(model: Population, x: Array, y: Array, codes: Codes) -> tuple[Population, Array]:
    """The model fitted to all tasks, and offsets (row,) of each task by a model without it."""
    if isinstance(model, HistGradientBoostingRegressor) and model.early_stopping == "auto":
        return _boosted(model, x, y, codes)
    offset = np.empty(len(y))
    for seen, unseen in _folds(codes):
        offset[unseen] = _offset(_fitted(model, x[seen], y[seen], codes[seen]), x[unseen])
    return _fitted(model, x, y, codes), offset


def _boosted(
    model: HistGradientBoostingRegressor,
    x: Array,
    y: Array,
    codes: Codes,
    leaf_sizes: Sequence[int] = (),
) -> tuple[HistGradientBoostingRegressor, Array]:
    """As many trees as predict unseen tasks best, and their predictions.

    By itself it would stop by held-out rows, of tasks whose other rows it was fitted to.

    Parameters
    ----------
    leaf_sizes : sequence of int
        Least rows in a leaf, to choose from; none for the model's own.
    """
    weight, candidates = _weight(codes), []
    for leaf_size in leaf_sizes or (model.min_samples_leaf,):
        grown = clone(model).set_params(early_stopping=False, min_samples_leaf=leaf_size)
        staged = np.empty((model.max_iter, len(y)), np.float32)
        for seen, unseen in _folds(codes):
            fitted = _fitted(grown, x[seen], y[seen], codes[seen])
            staged[:, unseen] = list(fitted.staged_predict(x[unseen]))
        losses = [weight @ (y - predicted) ** 2 for predicted in staged]
        best = int(np.argmin(losses))
        candidates.append((losses[best], best, grown, staged[best].astype(np.float64)))
    _, best, grown, offset = min(candidates, key=lambda candidate: candidate[0])
    return _fitted(grown.set_params(max_iter=best + 1), x, y, codes), offset


def _folds(codes: Codes) -> Iterator[tuple[Codes, Codes]]:
    """Rows of seen and of unseen tasks."""
    n_tasks = len(np.unique(codes))
    yield from GroupKFold(min(_N_FOLDS, n_tasks)).split(codes, groups=codes)


def _fitted(population: Population, x: Array, y: Array, codes: Codes) -> Population:
    if is_classifier(population):
        classes = np.unique(y)
        if len(classes) != 2:
            raise DataError(
                f"population= needs two classes in every part of the training tasks, got "
                f"{len(classes)}. Leave population= out, or train on more tasks."
            )
        return clone(population).fit(x, y.astype(np.int64))
    takes_weights = has_fit_parameter(population, "sample_weight")
    given = {"sample_weight": _weight(codes)} if takes_weights else {}
    return clone(population).fit(x, y, **given)


def _weight(codes: Codes) -> Array:
    """One over the rows of each row's task."""
    return 1.0 / np.bincount(codes)[codes]


def _features(rows: TaskRows) -> Array:
    """Encoded features known at the row; a constant where there is none."""
    x = rows.x.double().numpy()
    return x if x.shape[1] else np.zeros((rows.n_rows, 1))


def _replaced(rows: TaskRows, offset: Array) -> TaskRows:
    return replace(rows, offset=torch.from_numpy(np.asarray(offset)).to(rows.y.dtype))
