"""scikit-learn models as plain arrays, so that a model file holds no code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import special
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, is_classifier
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    Ridge,
    RidgeCV,
)
from sklearn.utils.extmath import softmax
from torch import Tensor

from ehrmeta.errors import BundleError

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_LINEAR = (ElasticNet, Lasso, LinearRegression, LogisticRegression, Ridge, RidgeCV)
_CONSTANT = (DummyClassifier, DummyRegressor)
_BOOSTED = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
_LOSSES = ("absolute_error", "squared_error", "log_loss")
SAVED_MODELS = {model.__name__: model for model in (*_LINEAR, *_CONSTANT, *_BOOSTED)}
WHAT_IS_SAVED = (
    f"{', '.join(SAVED_MODELS)} (boosting only with numeric splits and a loss among {_LOSSES})"
)
_FEW_ROWS = 64  # with more rows, tree by tree is faster
_N_CHECKED = 1000


@dataclass(eq=False, repr=False)
class LinearModel(RegressorMixin, BaseEstimator):
    """``coef . x + intercept``, with one output or one per class."""

    coef: Array  # (feature,) or (class, feature)
    intercept: Array  # () or (class,)

    @classmethod
    def of(cls, model: Any) -> LinearModel:
        """Coefficients of a fitted model, before its link function."""
        coef, intercept = np.asarray(model.coef_), np.asarray(model.intercept_)
        if len(coef) == 1 or coef.ndim == 1:
            coef, intercept = coef.reshape(-1), intercept.reshape(())
        return cls(coef.astype(np.float64), np.broadcast_to(intercept, coef.shape[:-1]) * 1.0)

    def predict(self, X: ArrayLike) -> Array:
        """Predictions, (row,) or (row, class)."""
        return np.asarray(X, np.float64) @ self.coef.T + self.intercept

    def check(self, n_features: int) -> bool:
        """Whether shapes and values are valid for `n_features`."""
        classes = self.intercept.shape
        return self.coef.shape == (*classes, n_features) and _are_classes(classes)


@dataclass(eq=False, repr=False)
class TreeSum(RegressorMixin, BaseEstimator):
    """Sum of a constant and binary trees, with all nodes in one table; one output or one per class.

    A row goes left if its feature is at most the threshold, or if it is missing and missing values
    go left. The children of a leaf are the leaf itself; other children come after their parents.
    """

    baseline: Array  # () or (class,): the constant
    depth: Index  # (): largest number of steps from a root to a leaf
    roots: Index  # (tree,): the root nodes; the trees cycle through the classes
    # feature, left, right (node,)
    feature: Index
    left: Index
    right: Index
    # threshold, value (node,)
    threshold: Array
    value: Array
    missing_left: NDArray[np.bool_]  # (node,)

    @classmethod
    def mean(cls, models: Sequence[HistGradientBoostingRegressor]) -> TreeSum:
        """Average of several fitted models."""
        parts, share = [cls.of(model) for model in models], 1.0 / len(models)
        sizes = np.array([len(part.feature) for part in parts], np.int64)
        shifts = np.cumsum(sizes) - sizes
        of_root = np.repeat(shifts, [len(part.roots) for part in parts])
        of_node = np.repeat(shifts, sizes)

        def joined(name: str) -> Any:
            return np.concatenate([getattr(part, name) for part in parts])

        return cls(
            baseline=share * np.sum([part.baseline for part in parts]),
            depth=np.max([part.depth for part in parts]),
            roots=joined("roots") + of_root,
            feature=joined("feature"),
            left=joined("left") + of_node,
            right=joined("right") + of_node,
            threshold=joined("threshold"),
            value=share * joined("value"),
            missing_left=joined("missing_left"),
        )

    @classmethod
    def of(cls, model: HistGradientBoostingRegressor | HistGradientBoostingClassifier) -> TreeSum:
        """Trees of a fitted model, before its link function."""
        tables = [tree.nodes for iteration in model._predictors for tree in iteration]
        sizes = np.array([len(table) for table in tables], np.int64)
        roots = np.cumsum(sizes) - sizes
        nodes = np.concatenate(tables)
        is_leaf, itself = nodes["is_leaf"].astype(bool), np.arange(len(nodes))
        shift = np.repeat(roots, sizes)
        baseline = np.asarray(model._baseline_prediction, np.float64)
        return cls(
            baseline=baseline.reshape(-1) if baseline.size > 1 else baseline.reshape(()),
            depth=np.asarray(nodes["depth"].max(), np.int64),
            roots=roots,
            feature=np.where(is_leaf, 0, nodes["feature_idx"]).astype(np.int64),
            left=np.where(is_leaf, itself, nodes["left"] + shift).astype(np.int64),
            right=np.where(is_leaf, itself, nodes["right"] + shift).astype(np.int64),
            threshold=np.minimum(nodes["num_threshold"], np.finfo(np.float64).max),
            value=np.where(is_leaf, nodes["value"], 0.0),
            missing_left=nodes["missing_go_to_left"].astype(bool),
        )

    def unbinned(self, edges: Mapping[int, Array]) -> TreeSum:
        """The trees of all features, if some features are bin numbers.

        Parameters
        ----------
        edges : mapping
            Upper ends of the bins, but for the last, by number of the binned feature.
        """
        threshold = self.threshold.copy()
        for feature, ends in edges.items():
            splits = (self.feature == feature) & (self.left != np.arange(len(self.left)))
            threshold[splits] = ends[threshold[splits].astype(np.int64)]
        return replace(self, threshold=threshold)

    def predict(self, X: ArrayLike) -> Array:
        """Predictions, (row,) or (row, class); terms are added in the order of the trees."""
        x = np.asarray(X, np.float64)
        total = self._of_few(x) if len(x) <= _FEW_ROWS else self._of_many(x)
        return total.T if self.baseline.shape else total[0]

    def _of_few(self, x: Array) -> Array:
        """Predictions, (class, row), with all rows descending all trees at once."""
        node = np.broadcast_to(self.roots, (len(x), len(self.roots)))
        row = np.arange(len(x))[:, None]
        for _ in range(int(self.depth)):
            at = x[row, self.feature[node]]
            goes_left = np.where(np.isnan(at), self.missing_left[node], at <= self.threshold[node])
            node = np.where(goes_left, self.left[node], self.right[node])
        n_classes = self.baseline.size
        terms = self.value[node].T.reshape(len(self.roots) // n_classes, n_classes, len(x))
        start = np.broadcast_to(self.baseline.reshape(1, -1, 1), (1, n_classes, len(x)))
        total: Array = np.cumsum(np.concatenate([start, terms]), axis=0)[-1]
        return total

    def _of_many(self, x: Array) -> Array:
        """Predictions, (class, row), tree by tree: every node splits the rows that reach it."""
        columns, rows = np.ascontiguousarray(x.T), np.arange(len(x))
        total, term = np.repeat(self.baseline.reshape(-1, 1), len(x), axis=1), np.empty(len(x))
        for tree, root in enumerate(self.roots):
            reached = [(root, rows)]
            while reached:
                node, here = reached.pop()
                if self.left[node] == node:
                    term[here] = self.value[node]
                    continue
                at = columns[self.feature[node]][here]
                goes_left = at <= self.threshold[node]
                if self.missing_left[node]:
                    goes_left |= np.isnan(at)
                reached += [
                    (self.left[node], here[goes_left]),
                    (self.right[node], here[~goes_left]),
                ]
            total[tree % len(total)] += term
        return total

    def check(self, n_features: int) -> bool:
        """Whether shapes and values are valid for `n_features`."""
        n = len(self.feature)
        tables = (self.left, self.right, self.threshold, self.value, self.missing_left)
        return bool(
            self.depth.shape == ()
            and _are_classes(self.baseline.shape)
            and all(table.shape == (n,) for table in tables)
            and all(_within(places, n) for places in (self.roots, self.left, self.right))
            and _within(self.feature, n_features)
            and len(self.roots) % self.baseline.size == 0
            and self._are_trees()
        )

    def _are_trees(self) -> bool:
        """Whether every node is a root or has one earlier parent, and `depth` is correct."""
        node = np.arange(len(self.feature))
        inner = (self.left != node) | (self.right != node)
        left, right = self.left[inner], self.right[inner]
        parents = np.bincount(np.concatenate([self.roots, left, right]), minlength=len(node))
        if (parents != 1).any() or (np.minimum(left, right) <= node[inner]).any():
            return False
        level, depth = self.roots, 0
        while len(level := level[inner[level]]):
            level, depth = np.concatenate([self.left[level], self.right[level]]), depth + 1
        return depth == int(self.depth)


@dataclass(eq=False, repr=False)
class LogOdds(ClassifierMixin, BaseEstimator):
    """Classifier of 0, 1, ... from a model of the log-odds of class 1 or of one logit per class."""

    model: LinearModel | TreeSum

    @property
    def classes_(self) -> Index:
        """Numbers of the classes."""
        model = self.model
        constant = model.intercept if isinstance(model, LinearModel) else model.baseline
        return np.arange(max(2, constant.size))

    def predict_proba(self, X: ArrayLike) -> Array:
        """Probabilities of all classes, (row, class)."""
        logits = self.model.predict(X)
        if logits.ndim == 2:
            return np.asarray(softmax(logits))
        p = special.expit(logits)
        return np.column_stack([1.0 - p, p])


@dataclass(eq=False, repr=False)
class Shares(ClassifierMixin, BaseEstimator):
    """Classifier of 0, 1, ... with constant probabilities."""

    probabilities: Array  # (class,)

    @property
    def classes_(self) -> Index:
        """Numbers of the classes."""
        return np.arange(len(self.probabilities))

    def predict_proba(self, X: ArrayLike) -> Array:
        """Probabilities of all classes, (row, class)."""
        return np.tile(self.probabilities, (len(np.asarray(X)), 1))

    def check(self, n_features: int) -> bool:
        """Whether these are probabilities of at least two classes."""
        p = self.probabilities
        return p.ndim == 1 and len(p) > 1 and bool((p >= 0).all()) and abs(p.sum() - 1) < 1e-9


Plain: TypeAlias = LinearModel | TreeSum | LogOdds | Shares

_OF_LOG_ODDS = " of log-odds"
_KINDS: dict[str, type[LinearModel] | type[TreeSum] | type[Shares]] = {
    "linear": LinearModel,
    "trees": TreeSum,
    "shares": Shares,
}
_DTYPES = {"depth": torch.int64, "roots": torch.int64, "feature": torch.int64}
_DTYPES |= {"left": torch.int64, "right": torch.int64, "missing_left": torch.bool}


def is_saved(model: Any) -> bool:
    """Whether a model with these settings can be saved."""
    if isinstance(model, Plain):
        return True
    if isinstance(model, _BOOSTED) and (
        model.loss not in _LOSSES or model.categorical_features not in (None, "from_dtype")
    ):
        return False
    if isinstance(model, DummyClassifier) and model.strategy != "prior":
        return False
    return SAVED_MODELS.get(type(model).__name__) is type(model)


def written_model(model: Any, n_features: int) -> tuple[str, dict[str, Tensor]]:
    """Kind and arrays of a fitted regressor or classifier, checked to predict the same.

    Raises
    ------
    BundleError
        The arrays predict something else.
    """
    plain = _plain(model, n_features)
    inner = plain.model if isinstance(plain, LogOdds) else plain
    random = np.random.default_rng(0)
    probe = random.normal(0.0, 2.0, (_N_CHECKED, n_features))
    if isinstance(inner, TreeSum):
        probe[random.random(probe.shape) < 0.1] = np.nan
    expected = _predicted(model, probe)
    tolerance = 1e-12 * max(1.0, float(np.abs(expected).max()))
    if not np.allclose(_predicted(plain, probe), expected, rtol=1e-12, atol=tolerance):
        raise BundleError(
            f"a {type(model).__name__} cannot be saved: its arrays do not predict what it "
            f"predicts. Use one of {WHAT_IS_SAVED}."
        )
    kind = next(name for name, made in _KINDS.items() if type(inner) is made)
    if isinstance(plain, LogOdds):
        kind += _OF_LOG_ODDS
    return kind, {
        field.name: torch.as_tensor(np.array(getattr(inner, field.name))) for field in fields(inner)
    }


def read_model(kind: str, tensors: Mapping[str, Tensor], n_features: int) -> Plain:
    """The inverse of `written_model`.

    Raises
    ------
    BundleError
        The kind is unknown, or the arrays are invalid.
    """
    model = _KINDS.get(str(kind).removesuffix(_OF_LOG_ODDS))
    if model is None or {field.name for field in fields(model)} != tensors.keys():
        raise BundleError(f"its population model has the unknown kind {kind!r}.")
    typed = all(
        value.dtype == _DTYPES.get(name, torch.float64) and bool(value.isfinite().all())
        for name, value in tensors.items()
    )
    plain = model(**{name: value.numpy() for name, value in tensors.items()})
    if not (typed and plain.check(n_features)):
        raise BundleError("the arrays of its population model do not fit together.")
    if kind.endswith(_OF_LOG_ODDS) and not isinstance(plain, Shares):
        plain = LogOdds(plain)
    plain.n_features_in_ = n_features
    return plain


def _plain(model: Any, n_features: int) -> Plain:
    """A fitted model as arrays."""
    if isinstance(model, Plain):
        return model
    if isinstance(model, DummyClassifier):
        return Shares(np.asarray(model.class_prior_, np.float64))
    if isinstance(model, DummyRegressor):
        constant = np.asarray(model.constant_, np.float64).reshape(())
        return LinearModel(np.zeros(n_features), constant)
    scores = LinearModel.of(model) if isinstance(model, _LINEAR) else TreeSum.of(model)
    return LogOdds(scores) if is_classifier(model) else scores


def _predicted(model: Any, x: Array) -> Array:
    predict = model.predict_proba if is_classifier(model) else model.predict
    return np.asarray(predict(x))


def _within(places: Index, n: int) -> bool:
    return places.ndim == 1 and bool(((places >= 0) & (places < n)).all())


def _are_classes(shape: tuple[int, ...]) -> bool:
    """Whether a shape is () for one output, or (class,) for three or more classes."""
    return shape == () or (len(shape) == 1 and shape[0] > 2)
