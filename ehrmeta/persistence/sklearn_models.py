"""scikit-learn models as plain arrays: what a model file holds in place of code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import special
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, is_classifier
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import ElasticNet, Lasso, LinearRegression, LogisticRegression, Ridge
from torch import Tensor

from ehrmeta.errors import BundleError

__all__ = [
    "SAVED_MODELS",
    "WHAT_IS_SAVED",
    "LinearModel",
    "LogOdds",
    "TreeSum",
    "is_saved",
    "read_model",
    "written_model",
]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_LINEAR = (ElasticNet, Lasso, LinearRegression, LogisticRegression, Ridge)
_BOOSTED = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
_LOSSES = ("absolute_error", "squared_error", "log_loss")
SAVED_MODELS = {model.__name__: model for model in (*_LINEAR, *_BOOSTED)}
WHAT_IS_SAVED = f"{', '.join(SAVED_MODELS)} (boosting with numeric splits and one of {_LOSSES})"
_FEW_ROWS = 64  # with more, one tree after another is faster
_N_CHECKED = 1000


@dataclass(eq=False, repr=False)
class LinearModel(RegressorMixin, BaseEstimator):
    """``coef . x + intercept``.

    Parameters
    ----------
    coef : (feature,)
    intercept : ()
    """

    coef: Array
    intercept: Array

    @classmethod
    def of(cls, model: Any) -> LinearModel:
        """The coefficients of a fitted model, before its link."""
        coef, intercept = np.asarray(model.coef_), np.asarray(model.intercept_)
        return cls(coef.astype(np.float64).reshape(-1), intercept.astype(np.float64).reshape(()))

    def predict(self, X: ArrayLike) -> Array:
        """Predictions, (row,)."""
        return np.asarray(X, np.float64) @ self.coef + self.intercept

    def check(self, n_features: int) -> bool:
        """Whether the arrays are those of a model of so many features."""
        return self.coef.shape == (n_features,) and self.intercept.shape == ()


@dataclass(eq=False, repr=False)
class TreeSum(RegressorMixin, BaseEstimator):
    """A constant plus binary trees, whose nodes stand in one table.

    A row goes left where its feature is at most the threshold, or is missing and missing goes
    left; leaves are their own children.

    Parameters
    ----------
    baseline, depth : ()
        The constant, and how many steps lead from a root to any leaf.
    roots : (tree,)
    feature, left, right : (node,)
    threshold, value : (node,)
    missing_left : (node,) bool
    """

    baseline: Array
    depth: Index
    roots: Index
    feature: Index
    left: Index
    right: Index
    threshold: Array
    value: Array
    missing_left: NDArray[np.bool_]

    @classmethod
    def mean(cls, models: Sequence[HistGradientBoostingRegressor]) -> TreeSum:
        """The trees of several fitted models, whose predictions are averaged."""
        parts, share = [cls.of(model) for model in models], 1.0 / len(models)
        sizes = np.array([len(part.feature) for part in parts], np.int64)
        shifts = np.cumsum(sizes) - sizes

        def moved(name: str) -> Index:
            return np.concatenate(
                [getattr(part, name) + at for part, at in zip(parts, shifts, strict=True)]
            )

        def joined(name: str) -> Any:
            return np.concatenate([getattr(part, name) for part in parts])

        return cls(
            baseline=share * np.sum([part.baseline for part in parts]),
            depth=np.max([part.depth for part in parts]),
            roots=moved("roots"),
            feature=joined("feature"),
            left=moved("left"),
            right=moved("right"),
            threshold=joined("threshold"),
            value=share * joined("value"),
            missing_left=joined("missing_left"),
        )

    @classmethod
    def of(cls, model: HistGradientBoostingRegressor | HistGradientBoostingClassifier) -> TreeSum:
        """The trees of a fitted model, before its link."""
        tables = [tree.nodes for iteration in model._predictors for tree in iteration]
        sizes = np.array([len(table) for table in tables], np.int64)
        roots = np.cumsum(sizes) - sizes
        nodes = np.concatenate(tables)
        is_leaf, own = nodes["is_leaf"].astype(bool), np.arange(len(nodes))
        shift = np.repeat(roots, sizes)
        return cls(
            baseline=np.asarray(model._baseline_prediction, np.float64).reshape(()),
            depth=np.asarray(nodes["depth"].max(), np.int64),
            roots=roots,
            feature=np.where(is_leaf, 0, nodes["feature_idx"]).astype(np.int64),
            left=np.where(is_leaf, own, nodes["left"] + shift).astype(np.int64),
            right=np.where(is_leaf, own, nodes["right"] + shift).astype(np.int64),
            threshold=np.minimum(nodes["num_threshold"], np.finfo(np.float64).max),
            value=np.where(is_leaf, nodes["value"], 0.0),
            missing_left=nodes["missing_go_to_left"].astype(bool),
        )

    def predict(self, X: ArrayLike) -> Array:
        """Predictions, (row,); terms are added in the order of the trees, as there."""
        x = np.asarray(X, np.float64)
        return self._of_few(x) if len(x) <= _FEW_ROWS else self._of_many(x)

    def _of_few(self, x: Array) -> Array:
        """All rows go down all trees at once."""
        node = np.broadcast_to(self.roots, (len(x), len(self.roots)))
        row = np.arange(len(x))[:, None]
        for _ in range(int(self.depth)):
            at = x[row, self.feature[node]]
            goes_left = np.where(np.isnan(at), self.missing_left[node], at <= self.threshold[node])
            node = np.where(goes_left, self.left[node], self.right[node])
        terms = np.column_stack([np.full(len(x), self.baseline), self.value[node]])
        total: Array = np.cumsum(terms, axis=1)[:, -1]
        return total

    def _of_many(self, x: Array) -> Array:
        """Tree by tree, every node parts its rows: no row is touched twice at one depth."""
        columns, rows = np.ascontiguousarray(x.T), np.arange(len(x))
        total, term = np.full(len(x), self.baseline), np.empty(len(x))
        for root in self.roots:
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
            total += term
        return total

    def check(self, n_features: int) -> bool:
        """Whether the arrays are those of a model of so many features."""
        n = len(self.feature)
        tables = (self.left, self.right, self.threshold, self.value, self.missing_left)
        return bool(
            self.baseline.shape == self.depth.shape == ()
            and 0 <= self.depth <= n
            and all(table.shape == (n,) for table in tables)
            and all(_within(places, n) for places in (self.roots, self.left, self.right))
            and _within(self.feature, n_features)
        )


@dataclass(eq=False, repr=False)
class LogOdds(ClassifierMixin, BaseEstimator):
    """Two classes, 0 and 1, from a model of their log-odds."""

    model: LinearModel | TreeSum

    def predict_proba(self, X: ArrayLike) -> Array:
        """Probabilities of both classes, (row, 2)."""
        p = special.expit(self.model.predict(X))
        return np.column_stack([1.0 - p, p])


Plain: TypeAlias = LinearModel | TreeSum | LogOdds

_OF_LOG_ODDS = " of log-odds"
_KINDS: dict[str, type[LinearModel] | type[TreeSum]] = {"linear": LinearModel, "trees": TreeSum}
_DTYPES = {"depth": torch.int64, "roots": torch.int64, "feature": torch.int64}
_DTYPES |= {"left": torch.int64, "right": torch.int64, "missing_left": torch.bool}


def is_saved(model: Any) -> bool:
    """Whether a file can hold such a model, with such settings."""
    if isinstance(model, Plain):
        return True
    if isinstance(model, _BOOSTED) and (
        model.loss not in _LOSSES or model.categorical_features not in (None, "from_dtype")
    ):
        return False
    return SAVED_MODELS.get(type(model).__name__) is type(model)


def written_model(model: Any, n_features: int) -> tuple[str, dict[str, Tensor]]:
    """Kind and arrays of a fitted model of one number or of two classes, which predict as it does.

    Raises
    ------
    BundleError
        The arrays do not predict what the model predicts.
    """
    plain = _plain(model)
    inner = plain.model if isinstance(plain, LogOdds) else plain
    expected = _predicted(model, probe := _probe(n_features, missing=isinstance(inner, TreeSum)))
    tolerance = 1e-12 * max(1.0, float(np.abs(expected).max()))
    if not np.allclose(_predicted(plain, probe), expected, rtol=1e-12, atol=tolerance):
        raise BundleError(
            f"the arrays of a {type(model).__name__} do not predict what it predicts."
        )
    kind = "trees" if isinstance(inner, TreeSum) else "linear"
    if isinstance(plain, LogOdds):
        kind += _OF_LOG_ODDS
    return kind, {
        field.name: torch.as_tensor(np.array(getattr(inner, field.name))) for field in fields(inner)
    }


def read_model(kind: str, tensors: Mapping[str, Tensor], n_features: int) -> Plain:
    """The inverse of `written_model`, checked before it is used.

    Raises
    ------
    BundleError
        The arrays are not those of such a model.
    """
    model = _KINDS.get(str(kind).removesuffix(_OF_LOG_ODDS))
    if model is None or {field.name for field in fields(model)} != tensors.keys():
        raise BundleError(f"its population model is no {kind!r} known here.")
    typed = all(value.dtype == _DTYPES.get(name, torch.float64) for name, value in tensors.items())
    found = model(**{name: value.numpy() for name, value in tensors.items()})
    if not (typed and found.check(n_features)):
        raise BundleError("the arrays of its population model do not fit together.")
    return LogOdds(found) if kind.endswith(_OF_LOG_ODDS) else found


def _plain(model: Any) -> Plain:
    if isinstance(model, Plain):
        return model
    found = LinearModel.of(model) if isinstance(model, _LINEAR) else TreeSum.of(model)
    return LogOdds(found) if is_classifier(model) else found


def _probe(n_features: int, *, missing: bool) -> Array:
    """Rows to compare two models on, (row, feature)."""
    random = np.random.default_rng(0)
    x = random.normal(0.0, 2.0, (_N_CHECKED, n_features))
    if missing:
        x[random.random(x.shape) < 0.1] = np.nan
    return x


def _predicted(model: Any, x: Array) -> Array:
    predict = model.predict_proba if is_classifier(model) else model.predict
    return np.asarray(predict(x))


def _within(places: Index, n: int) -> bool:
    return places.ndim == 1 and bool(((places >= 0) & (places < n)).all())
