"""Cross-fitting of models, and stacking with weights from their out-of-fold predictions."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls
from sklearn.base import clone, is_classifier
from sklearn.utils.validation import has_fit_parameter

from ehrmeta.errors import DataError
from ehrmeta.treatment.arms import AnyArray, Array, Index, Mask


class CrossFitted(ABC):
    """Models fitted once per fold, each time without that fold's rows."""

    @abstractmethod
    def by_fold(self, x: Array) -> Array:
        """Predictions of each fold's models, (fold, row) or (fold, row, class)."""

    def predict(self, x: Array) -> Array:
        """Mean over the folds' models, for new rows, (row,) or (row, class)."""
        return np.asarray(self.by_fold(x).mean(0))


@dataclass(frozen=True, eq=False)
class Stack(CrossFitted):
    """A weighted sum of models, each fitted once per left-out fold."""

    folds: tuple[tuple[Any, ...], ...]  # by fold, then by model
    weights: Array  # (model,): not negative
    intercept: float = 0.0

    def by_fold(self, x: Array) -> Array:
        """Predictions of each fold's models, (fold, row) or (fold, row, class)."""
        return np.stack([self._sum([model_outputs(m, x) for m in models]) for models in self.folds])

    def _sum(self, outputs: Sequence[Array]) -> Array:
        return np.asarray(np.tensordot(self.weights, np.stack(outputs), axes=1) + self.intercept)


def cross_fit(
    models: Sequence[Any],
    x: Array,
    target: AnyArray,
    fold: Index,
    *,
    train: Mask | None = None,
    weight: Array | None = None,
    centre: Index | None = None,
    random_state: int = 0,
) -> tuple[Stack, Array]:
    """Fit models once per fold, without its rows, and stack them by non-negative least squares.

    Parameters
    ----------
    models : sequence of estimators
        Classifiers predict probabilities: of class 1 if the classes are 0 and 1, else of each
        class.
    x, target, fold : (row, feature), (row,), (row,)
    train : (row,), optional
        Rows to fit on; other rows are only predicted.
    weight : (row,), optional
        Sample weights, passed to models that accept `sample_weight`.
    centre : (row,), optional
        Task of every row: predictions are centred within tasks before the weights are estimated.

    Returns
    -------
    stack : Stack
    outputs : (row,) or (row, class)
        Out-of-fold predictions.
    """
    train = np.ones(len(x), bool) if train is None else train
    weight = np.ones(len(x)) if weight is None else weight
    fitted, by_fold = [], []
    for k in range(int(fold.max()) + 1):
        others = train & (fold != k)
        fitted.append(
            tuple(
                fit_model(m, x[others], target[others], weight[others], random_state)
                for m in models
            )
        )
        by_fold.append([model_outputs(m, x[fold == k]) for m in fitted[-1]])
    outputs = np.empty((len(models), len(x), *by_fold[0][0].shape[1:]))
    for k, of_fold in enumerate(by_fold):
        outputs[:, fold == k] = of_fold
    weights, intercept = _weights(outputs, target, train, weight, centre)
    stack = Stack(tuple(fitted), weights, intercept)
    return stack, stack._sum(list(outputs))


def fit_model(model: Any, x: Array, y: AnyArray, weight: Array, random_state: int = 0) -> Any:
    """A fitted clone, with sample weights and seed if the model accepts them."""
    fresh = clone(model)
    if "random_state" in fresh.get_params() and fresh.get_params()["random_state"] is None:
        fresh.set_params(random_state=random_state)
    given = {"sample_weight": weight} if has_fit_parameter(fresh, "sample_weight") else {}
    return fresh.fit(x, y, **given)


def model_outputs(model: Any, x: Array) -> Array:
    """Predictions, or probabilities: of class 1 if the classes are 0 and 1, else of each class."""
    if len(x) == 0:  # scikit-learn would raise an error
        wide = is_classifier(model) and list(model.classes_) != [0, 1]
        return np.empty((0, len(model.classes_)) if wide else 0)
    if not is_classifier(model):
        return np.asarray(model.predict(x), dtype=np.float64)
    probabilities = np.asarray(model.predict_proba(x), dtype=np.float64)
    return probabilities[:, 1] if list(model.classes_) == [0, 1] else probabilities


def _weights(
    outputs: Array, target: AnyArray, train: Mask, weight: Array, centre: Index | None
) -> tuple[Array, float]:
    """Non-negative weights and an intercept; for several classes, the weights sum to 1."""
    n_models = len(outputs)
    if n_models == 1:
        return np.ones(1), 0.0
    if outputs.ndim == 3:
        hot = (target[train, None] == np.arange(outputs.shape[2])).astype(np.float64)
        share = nnls(outputs[:, train].reshape(n_models, -1).T, hot.ravel())[0]
        return (share / share.sum() if share.sum() > 0 else np.full(n_models, 1 / n_models)), 0.0
    x, y, w = outputs[:, train].T, target[train].astype(np.float64), weight[train]
    cells = np.zeros(len(y), np.int64) if centre is None else centre[train]
    root = np.sqrt(w)
    weights = nnls(
        root[:, None] * (x - _means(x, w, cells)), root * (y - _means(y[:, None], w, cells)[:, 0])
    )[0]
    return weights, float(np.average(y - x @ weights, weights=w))


def _means(values: Array, weight: Array, cells: Index) -> Array:
    """Weighted mean of each row's cell, (row, column)."""
    total = np.bincount(cells, weight)
    sums = np.column_stack([np.bincount(cells, weight * column) for column in values.T])
    return np.asarray((sums / np.where(total > 0, total, 1.0)[:, None])[cells])


def cross_fit_folds(
    task: Index,
    n_tasks: int,
    n_folds: int,
    *,
    strata: AnyArray | None = None,
    random_state: int = 0,
) -> Index:
    """Fold number of each row, (row,).

    Whole tasks are assigned to folds at random. With a single task, rows are assigned to folds,
    balanced within `strata` (row,).

    Examples
    --------
    >>> folds = cross_fit_folds(np.array([0, 0, 1, 1, 2]), 3, 3)
    >>> bool(folds[0] == folds[1]), sorted(set(folds.tolist()))
    (True, [0, 1, 2])
    """
    if n_folds < 2:
        raise DataError(f"n_folds must be 2 or more for cross-fitting, got {n_folds}.")
    random = np.random.default_rng(random_state)
    if n_tasks > 1:
        return np.asarray(random.permutation(np.arange(n_tasks) % n_folds)[task])
    order = random.permutation(len(task))
    if strata is not None:
        order = order[np.argsort(strata[order], kind="stable")]
    fold = np.empty(len(task), np.int64)
    fold[order] = np.arange(len(task)) % n_folds
    return fold
