"""Cross-fitted population models, whose predictions are offsets of the meta-learner."""

from collections.abc import Iterator, Mapping, Sequence
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
from threadpoolctl import threadpool_limits

from ehrmeta.errors import DataError, GroupError
from ehrmeta.nn.batch import TaskRows
from ehrmeta.nn.device import in_threads
from ehrmeta.persistence.sklearn_models import TreeSum

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Population: TypeAlias = Any  # sklearn's regressors and classifiers declare no fit or predict

_N_FOLDS = 5
_LEAF_SIZES = (5, 20)
_MANY_ROWS = 20_000  # with more, folds are fewer and the leaf size is not searched
_N_FOLDS_OF_MANY, _LEAF_SIZE_OF_MANY = 3, 20
_MOST_ROWS = 100_000  # that trees are fitted to
_MOST_FEATURES = 50  # of more, trees of a third of the tasks choose this many
_SCREENING_TREES = 40
_ROWS_AT_ONCE = 1_000_000  # that are predicted
_N_BINS = 255  # of each feature
_FIRST_TREES = 50  # number of trees at first; doubled while more may predict better
_FEWEST_TASKS = 20  # below this, too few to select a boosted offset
_FEW_TASKS = 50  # below this, trees must gain two standard errors
_LEAST_PROBABILITY = 1e-5  # trees may predict 0, whose logit is infinite


def cross_fit_population(population: Population, rows: TaskRows) -> tuple[Population, TaskRows]:
    """Fit a population model, and set the offset of the training rows by cross-fitting.

    The offset of a row comes from a model fitted without the row's task, so that the meta-learner
    sees errors as on new tasks; the returned model is fitted to all tasks. The offset is the
    prediction of a regressor, or the logit of a classifier's probability. Tasks have equal weights
    if a regressor takes `sample_weight`; a classifier weights rows by its `class_weight`, if any.
    A `HistGradientBoostingRegressor` with ``early_stopping="auto"`` uses the number of trees that
    predicts unseen tasks best. Measured features are excluded: at prediction time they are known
    through the support only.

    Parameters
    ----------
    population : regressor or classifier
        Any of scikit-learn; it is cloned.
    rows : TaskRows
        Rows of the training tasks.

    Raises
    ------
    GroupError
        There is one task only.
    DataError
        A classifier has more than two classes, or one class only in a part of the tasks.
    """
    if rows.n_tasks < 2:
        raise GroupError(
            "population= needs two tasks or more for cross-fitting. Pass groups=, or leave "
            "population= out."
        )
    x, y, codes = _features(rows), rows.y.double().numpy(), rows.codes.numpy()
    fitted, offset = _cross_fit(population, x, y, codes)
    return fitted, _set_offset(rows, offset)


def add_boosted_offset(
    boosting: HistGradientBoostingRegressor,
    rows: TaskRows,
    thin: npt.NDArray[np.bool_] | None = None,
) -> tuple[TreeSum | None, TaskRows]:
    """Cross-fit boosted trees as an offset of a linear mean, if they improve on held-out tasks.

    The offset is the mean of two models: trees fitted to the residuals of a ridge regression, and
    trees fitted to the outcome. Number of trees and leaf size are those that predict unseen tasks
    best. The offset plus half of the ridge prediction must have a lower squared error than the
    ridge regression, by more than one paired standard error, or two with fewer than 50 tasks.

    At most 100,000 rows are used, of randomly drawn tasks; the offset of other tasks comes from the
    final trees. Features of more than 255 values are binned once. With more than 20,000 rows, there
    are three folds instead of five, and leaves have 20 rows or more. Of more than 50 features,
    trees that are grown on a third of the tasks choose 50 for the trees of the others.

    Trees are not fitted to rows with a level of few tasks. If such a level occurs in one fold only,
    its effect would be counted twice: by the final trees, which are fitted to it, and by the linear
    mean, which is fitted beside cross-fitted trees that are not.

    Parameters
    ----------
    boosting : HistGradientBoostingRegressor
        Cloned.
    rows : TaskRows
        Rows of the training tasks.
    thin : (feature,), optional
        Columns of levels of few tasks.

    Returns
    -------
    model, rows
        The trees and the rows with their offset; None and the unchanged rows if trees do not help.
    """
    if not rows.x.shape[1]:
        return None, rows
    every_x = rows.x.numpy()
    columns = every_x[:, : len(thin)][:, thin] if thin is not None else every_x[:, :0]
    used = _sample(rows) & ~columns.any(axis=1)
    chosen = np.arange(every_x.shape[1])
    if len(chosen) > _MOST_FEATURES:
        for_choice = used & (rows.codes.numpy() % 3 == 0)
        used &= ~for_choice
        chosen = _most_used(boosting, every_x[for_choice], rows.y.numpy()[for_choice])
    tasks, codes = np.unique(rows.codes.numpy()[used], return_inverse=True)
    if len(tasks) < _FEWEST_TASKS or not len(chosen):
        return None, rows
    x, y = every_x[used].astype(np.float64), rows.y.numpy()[used].astype(np.float64)
    linear = _cross_fit(Ridge(), x, y, codes)[1]
    x = x[:, chosen]
    edges = _bin_edges(x, _weight(codes))
    bins = _binned(x, edges)
    is_large = len(y) > _MANY_ROWS or every_x.shape[1] > _MOST_FEATURES
    leaf_sizes = (_LEAF_SIZE_OF_MANY,) if is_large else _LEAF_SIZES

    def boosted(target: Array) -> tuple[HistGradientBoostingRegressor, Array]:
        with threadpool_limits(1, user_api="openmp"):
            return _boosted(boosting, bins, target, codes, leaf_sizes)

    models, offsets = zip(*in_threads(boosted, [y - linear, y]), strict=True)
    offset = 0.5 * (offsets[0] + offsets[1])
    residual, residual_of_both = y - linear, y - 0.5 * linear - offset
    gain = np.bincount(codes, _weight(codes) * (residual**2 - residual_of_both**2))
    n_errors = 1.0 if len(tasks) >= _FEW_TASKS else 2.0
    if gain.mean() <= n_errors * gain.std(ddof=1) / np.sqrt(len(gain)):
        return None, rows
    every_offset = np.empty(len(used))
    every_offset[used] = offset
    others = np.flatnonzero(~used)

    def predicted(part: Codes) -> Array:
        with threadpool_limits(1, user_api="openmp"):
            bins = _binned(every_x[np.ix_(part, chosen)].astype(np.float64), edges)
            return np.asarray(np.mean([model.predict(bins) for model in models], axis=0))

    parts = np.array_split(others, -(-len(others) // _ROWS_AT_ONCE)) if len(others) else []
    for part, values in zip(parts, in_threads(predicted, parts), strict=True):
        every_offset[part] = values
    trees = TreeSum.mean(models).unbinned(edges)
    return replace(trees, feature=chosen[trees.feature]), _set_offset(rows, every_offset)


def with_offset(population: Population, rows: TaskRows) -> TaskRows:
    """The rows with the predictions of a fitted population model added to their offset."""
    if rows.n_rows == 0:
        return rows
    return _set_offset(rows, rows.offset.numpy() + _offset(population, _features(rows)))


def _offset(fitted: Population, x: Array) -> Array:
    if not is_classifier(fitted):
        return np.asarray(fitted.predict(x))
    p = fitted.predict_proba(x)[:, 1]
    return np.asarray(special.logit(np.clip(p, _LEAST_PROBABILITY, 1.0 - _LEAST_PROBABILITY)))


def _cross_fit(model: Population, x: Array, y: Array, codes: Codes) -> tuple[Population, Array]:
    """The model fitted to all tasks, and cross-fitted offsets, (row,)."""
    if isinstance(model, HistGradientBoostingRegressor) and model.early_stopping == "auto":
        return _boosted(model, x, y, codes)
    offset = np.empty(len(y))
    for train, test in _folds(codes):
        offset[test] = _offset(_fitted(model, x[train], y[train], codes[train]), x[test])
    return _fitted(model, x, y, codes), offset


def _boosted(
    model: HistGradientBoostingRegressor,
    x: Array,
    y: Array,
    codes: Codes,
    leaf_sizes: Sequence[int] = (),
) -> tuple[HistGradientBoostingRegressor, Array]:
    """Boosting with the number of trees that predicts unseen tasks best, and its predictions.

    Early stopping of scikit-learn would hold out rows of tasks in the training data. Trees are
    grown until the best number is in the first half of those grown, or the first four fifths with
    many rows. `leaf_sizes` are candidates for the least number of rows in a leaf; by default that
    of the model.
    """
    weight, candidates, folds = _weight(codes), [], list(_folds(codes))
    enough = 2.0 if len(y) <= _MANY_ROWS else 1.25
    for leaf_size in leaf_sizes or (model.min_samples_leaf,):
        grown = clone(model).set_params(early_stopping=False, min_samples_leaf=leaf_size)
        of_fold = [clone(grown).set_params(warm_start=True) for _ in folds]
        n_trees, best = 0, 0
        while n_trees < model.max_iter and n_trees <= enough * best:
            n_trees = min(max(2 * n_trees, _FIRST_TREES), model.max_iter)
            staged = np.empty((n_trees, len(y)), np.float32)
            for growing, (train, test) in zip(of_fold, folds, strict=True):
                growing.set_params(max_iter=n_trees)
                growing.fit(x[train], y[train], sample_weight=weight[train])
                staged[:, test] = list(growing.staged_predict(x[test]))
            losses = [weight @ (y - predicted) ** 2 for predicted in staged]
            best = int(np.argmin(losses))
        candidates.append((losses[best], best, grown, staged[best].astype(np.float64)))
    _, best, grown, offset = min(candidates, key=lambda candidate: candidate[0])
    return _fitted(grown.set_params(max_iter=best + 1), x, y, codes), offset


def _most_used(
    boosting: HistGradientBoostingRegressor, x: npt.NDArray[np.float32], y: npt.NDArray[np.float32]
) -> Codes:
    """The 50 features with most splits in a few trees of the outcome, in their order."""
    if len(y) < 2:
        return np.empty(0, np.int64)
    few = clone(boosting).set_params(max_iter=_SCREENING_TREES, early_stopping=False)
    with threadpool_limits(1, user_api="openmp"):
        trees = TreeSum.of(few.fit(x[:_MANY_ROWS], y[:_MANY_ROWS]))
    splits = trees.feature[trees.left != np.arange(len(trees.left))]
    features, counts = np.unique(splits, return_counts=True)
    return np.sort(features[np.argsort(-counts, kind="stable")[:_MOST_FEATURES]])


def _sample(rows: TaskRows) -> npt.NDArray[np.bool_]:
    """Whether each row is used for trees: all, or those of a random sample of tasks."""
    order = np.random.default_rng(0).permutation(rows.n_tasks)
    drawn = np.empty(rows.n_tasks, bool)
    drawn[order] = np.cumsum(rows.sizes.numpy()[order]) <= _MOST_ROWS
    return np.asarray(drawn[rows.codes.numpy()])


def _bin_edges(x: Array, weight: Array) -> dict[int, Array]:
    """Upper ends, but for the last, of 255 bins of about the same weight.

    Only of features with more values: scikit-learn bins the others fast.
    """
    edges = {}
    for feature, column in enumerate(x.T):
        order = np.argsort(column)
        if len(np.unique(column[order])) > _N_BINS:
            share = np.cumsum(weight[order])
            ends = np.searchsorted(share, share[-1] * np.arange(1, _N_BINS) / _N_BINS)
            edges[feature] = np.unique(column[order][ends])
    return edges


def _binned(x: Array, edges: Mapping[int, Array]) -> Array:
    """The features, some of them as the numbers of their bins."""
    bins = x.copy()
    for feature, ends in edges.items():
        bins[:, feature] = np.searchsorted(ends, x[:, feature])
    return bins


def _folds(codes: Codes) -> Iterator[tuple[Codes, Codes]]:
    """Row numbers of training and held-out tasks, fold by fold."""
    n_tasks = len(np.unique(codes))
    n_folds = _N_FOLDS if len(codes) <= _MANY_ROWS else _N_FOLDS_OF_MANY
    yield from GroupKFold(min(n_folds, n_tasks)).split(codes, groups=codes)


def _fitted(population: Population, x: Array, y: Array, codes: Codes) -> Population:
    if is_classifier(population):
        classes = np.unique(y)
        if len(classes) != 2:
            raise DataError(
                f"population= needs two classes in every fold of the training tasks, got "
                f"{len(classes)}. Leave population= out, or train on more tasks."
            )
        return clone(population).fit(x, y.astype(np.int64))
    takes_weights = has_fit_parameter(population, "sample_weight")
    given = {"sample_weight": _weight(codes)} if takes_weights else {}
    return clone(population).fit(x, y, **given)


def _weight(codes: Codes) -> Array:
    """Weight of each row: one over the number of rows of its task."""
    return 1.0 / np.bincount(codes)[codes]


def _features(rows: TaskRows) -> Array:
    """Encoded features known at the row; a constant if there are none."""
    x = rows.x.double().numpy()
    return x if x.shape[1] else np.zeros((rows.n_rows, 1))


def _set_offset(rows: TaskRows, offset: Array) -> TaskRows:
    return replace(rows, offset=torch.from_numpy(np.asarray(offset)).to(rows.y.dtype))
