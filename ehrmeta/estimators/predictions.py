"""Predictive distributions on the scale of the outcome, and predictions as data frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special, stats

from ehrmeta.data import OutcomeScale, Warp
from ehrmeta.data.columns import level_names
from ehrmeta.errors import DataError, Remedy
from ehrmeta.estimators.inputs import Inputs
from ehrmeta.ranges import check_level

Array = npt.NDArray[np.float64]

_LARGEST_LOG = 3.0  # truncation of log outcomes, on the learner's scale
# Gauss-Hermite rule of a standard normal variable, for means of warped outcomes
_NODES, _SHARES = np.polynomial.hermite_e.hermegauss(40)
_SHARES = _SHARES / _SHARES.sum()
FrameType = Literal["pandas", "polars"]
FrameNames = Literal["ehrmeta", "meds"]
Column = npt.NDArray[Any]


class Prediction(ABC):
    """Predictions of some rows; quantiles need numbers, probabilities need classes."""

    @abstractmethod
    def point(self) -> npt.NDArray[Any]:
        """Point prediction of every row, (row,), as `predict` returns it."""

    @abstractmethod
    def columns(self, confidence_level: float) -> dict[str, npt.NDArray[Any]]:
        """Columns of a data frame of predictions, (row,) each."""

    @abstractmethod
    def take(self, index: npt.NDArray[np.int64]) -> Self:
        """The rows of an index, in its order."""

    def quantile(self, level: float) -> Array:
        """Quantile at one level, (row,)."""
        raise DataError(
            "classes have no quantiles or intervals.",
            Remedy("ask-for-classes", "Use predict_proba."),
        )

    def interval(self, confidence_level: float) -> Array:
        """Central interval, (row, 2): lower and upper end."""
        tail = 0.5 * (1.0 - confidence_level)
        return np.column_stack([self.quantile(tail), self.quantile(1.0 - tail)])

    def probabilities(self) -> Array:
        """Probability of every class, (row, class)."""
        raise DataError(
            "a real-valued outcome has no class probabilities. Use predict_quantiles, or "
            "MetaClassifier for classes."
        )


@dataclass(frozen=True)
class ClassPredictive(Prediction):
    """Class probabilities, one row each."""

    logits: Array  # (row, class)
    labels: npt.NDArray[Any]  # (class,)

    def point(self) -> npt.NDArray[Any]:
        """The most probable class."""
        likeliest: npt.NDArray[Any] = self.labels[self.logits.argmax(1)]
        return likeliest

    def probabilities(self) -> Array:
        """Softmax of the logits; rows sum to 1."""
        return np.asarray(special.softmax(self.logits, axis=1))

    def columns(self, confidence_level: float) -> dict[str, npt.NDArray[Any]]:
        """Likeliest class, and the probability of the second of two classes or of every class."""
        return class_columns(self, self.labels)

    def take(self, index: npt.NDArray[np.int64]) -> ClassPredictive:
        """The rows of an index, in its order."""
        return ClassPredictive(self.logits[index], self.labels)


@dataclass(frozen=True)
class Predictive(Prediction):
    """Independent predictive distributions, one per row.

    Normal, or Student's t if `dof` is given, on the learner's scale; `outcome` maps them back.
    Without `scale` there are point predictions only.
    """

    loc: Array  # (row,)
    outcome: OutcomeScale
    scale: Array | None = None  # (row,)
    dof: Array | None = None  # (row,)

    def point(self) -> Array:
        """The means."""
        return self.mean()

    def mean(self) -> Array:
        """Mean on the outcome's scale, (row,); the median if the mean does not exist.

        With a square root the mean is ``m^2 + variance``. With a log transform it is the mean of
        the distribution truncated at three standard deviations above the training mean (at least
        one above the median), because ``exp(m + s^2 / 2)`` depends on a tail without training
        outcomes. A log Student's t has no mean. With a `Warp` the mean is a Gauss-Hermite sum over
        quantiles, limited likewise towards an open end.

        Probability beyond an end of the outcome's range counts as at that end:
        ``E[min(max(y, low), high)]``.
        """
        transform = self.outcome.transform
        if self.scale is None or (transform == "log" and self.dof is not None):
            return self.outcome.inverse(self.loc)
        if isinstance(transform, Warp):
            return self._warped_mean(transform)
        m = self.outcome.center + self.outcome.scale * self.loc
        s = np.maximum(self.outcome.scale * self.scale, 1e-300)
        if transform is None:
            return self._within_range(m, s)
        if transform == "log":
            limit = np.maximum(_LARGEST_LOG - self.loc, 1.0) / self.scale
            share = special.log_ndtr(limit - s) - special.log_ndtr(limit)
            return self.outcome.clip(np.asarray(np.exp(m + 0.5 * s**2 + share)))
        inflation = 1.0 if self.dof is None else self.dof / (self.dof - 2.0)
        return self.outcome.clip(m**2 + s**2 * inflation)

    def _warped_mean(self, warp: Warp) -> Array:
        """Mean of the outcomes at quantiles of the learner's scale, (row,)."""
        total, sd = np.zeros(len(self.loc)), np.asarray(self.scale, np.float64)
        highest = np.maximum(_LARGEST_LOG, self.loc + 1.0) if warp.high is None else np.inf
        lowest = np.minimum(-_LARGEST_LOG, self.loc - 1.0) if warp.low is None else -np.inf
        for node, share in zip(_NODES, _SHARES, strict=True):
            e = node if self.dof is None else special.stdtrit(self.dof, special.ndtr(node))
            z = np.clip(self.loc + sd * e, lowest, highest)
            total += share * self.outcome.inverse(z)
        return total

    def _within_range(self, m: Array, s: Array) -> Array:
        """Mean of the distribution, clipped to the outcome's declared range, (row,)."""
        low, high = self.outcome.low, self.outcome.high
        below = 0.0 if low is None else s * self._excess((low - m) / s)
        above = 0.0 if high is None else s * self._excess((m - high) / s)
        return m + below - above

    def _excess(self, z: Array) -> Array:
        """``E[max(z - e, 0)]`` of a standard normal or Student's t variable e, (row,)."""
        if self.dof is None:
            return np.asarray(z * special.ndtr(z) + stats.norm.pdf(z))
        density = stats.t.pdf(z, self.dof) * (self.dof + z**2) / (self.dof - 1.0)
        return np.asarray(z * stats.t.cdf(z, self.dof) + density)

    def quantile(self, level: float) -> Array:
        """Quantile at one level, (row,)."""
        if self.scale is None:
            raise DataError(
                "this model has point predictions only. Use a MetaRegressor or MixedEffects for "
                "quantiles and intervals."
            )
        return self.outcome.inverse(self._standard_quantile(level) * self.scale + self.loc)

    def columns(self, confidence_level: float) -> dict[str, npt.NDArray[Any]]:
        """Mean and central interval; without a distribution the limits are NaN."""
        if self.scale is None:
            limits = np.full((len(self.loc), 2), np.nan)
        else:
            limits = self.interval(confidence_level)
        return number_columns(self.point(), limits)

    def cdf(self, y: Array) -> tuple[Array, Array]:
        """Distribution function just below and at the outcomes, (row,) each."""
        p = np.asarray(self._frozen().cdf(self.outcome.forward(y)))
        y, low, high = np.asarray(y, np.float64), self.outcome.low, self.outcome.high
        below = np.where(y <= (-np.inf if low is None else low), 0.0, p)
        return below, np.where(y >= (np.inf if high is None else high), 1.0, p)

    def take(self, index: npt.NDArray[np.int64]) -> Self:
        """The rows of an index, in its order."""
        scale = None if self.scale is None else self.scale[index]
        dof = None if self.dof is None else self.dof[index]
        return replace(self, loc=self.loc[index], scale=scale, dof=dof)

    def _standard_quantile(self, level: Any) -> Any:
        """Quantile of the standard normal or Student's t, as scipy's distributions compute it."""
        return special.ndtri(level) if self.dof is None else special.stdtrit(self.dof, level)

    def _frozen(self) -> Any:
        if self.dof is None:
            return stats.norm(self.loc, self.scale)
        return stats.t(self.dof, self.loc, self.scale)


def number_columns(mean: Array, limits: Array) -> dict[str, npt.NDArray[Any]]:
    """Columns of a data frame, from means (row,) and limits (row, 2)."""
    return {"mean": mean, "lower": limits[:, 0], "upper": limits[:, 1]}


def class_columns(prediction: Prediction, labels: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """Columns of a data frame: likeliest class, and risk of each class (of two, the second)."""
    p = prediction.probabilities()
    if len(labels) == 2:
        return {"class": prediction.point(), "risk": p[:, 1]}
    risks = {f"risk_{name}": p[:, c] for c, name in enumerate(level_names(labels))}
    return {"class": prediction.point(), **risks}


@dataclass(frozen=True, kw_only=True)
class CarriedPredictive(Predictive):
    """Mixture of a point mass at the last value and a `Predictive`.

    Parameters
    ----------
    unchanged : (row,)
        Probability that the outcome equals the last value.
    last : (row,)
        The last value on the learner's scale.
    """

    unchanged: Array
    last: Array

    def mean(self) -> Array:
        """Mean on the outcome's scale, (row,)."""
        last = self.outcome.inverse(self.last)
        return self.unchanged * last + (1.0 - self.unchanged) * super().mean()

    def quantile(self, level: float) -> Array:
        """Quantile at one level, (row,): the last value for levels within its point mass."""
        changed = 1.0 - self.unchanged
        below = changed * self._frozen().cdf(self.last)
        at_last = (below <= level) & (level <= below + self.unchanged)
        share = np.where(level < below, level, level - self.unchanged) / np.maximum(changed, 1e-300)
        other = self._standard_quantile(np.clip(share, 0.0, 1.0)) * self.scale + self.loc
        return self.outcome.inverse(np.where(at_last, self.last, other))

    def cdf(self, y: Array) -> tuple[Array, Array]:
        """Distribution function just below and at the outcomes, (row,) each."""
        changed = (1.0 - self.unchanged) * super().cdf(y)[0]
        y, last = np.asarray(y, dtype=np.float64), self.outcome.inverse(self.last)
        same = np.isclose(y, last, rtol=1e-5, atol=0.0)
        above = last < y
        return changed + self.unchanged * (above & ~same), changed + self.unchanged * (above | same)

    def take(self, index: npt.NDArray[np.int64]) -> Self:
        """The rows of an index, in its order."""
        taken = super().take(index)
        return replace(taken, unchanged=self.unchanged[index], last=self.last[index])


def prediction_frame(
    X: Any,
    inputs: Inputs,
    columns: Mapping[str, Column],
    *,
    as_: FrameType,
    names: FrameNames = "ehrmeta",
) -> Any:
    """Task, time and predictions of every row.

    Parameters
    ----------
    X : frame or array, (row, feature)
        A pandas index is kept.
    inputs : Inputs
        X as read; without groups or time there is no such column.
    columns : mapping of str to ndarray, (row,)
        Predictions by name.
    as_ : {"pandas", "polars"}
    names : {"ehrmeta", "meds"}
        As in ``Adapted.predict_frame``.
    """
    time: Any = inputs.time if inputs.dates is None else inputs.dates
    rows = {"task": inputs.groups, "time": time}
    rows = {name: values for name, values in rows.items() if values is not None} | dict(columns)
    if names == "meds":
        rows = _in_meds_names(rows)
    if as_ == "polars":
        import polars as pl

        return pl.from_pandas(pd.DataFrame(rows))
    return pd.DataFrame(rows, index=X.index if isinstance(X, pd.DataFrame) else None)


def check_frame(confidence_level: float, as_: str, names: str = "ehrmeta") -> float:
    """The confidence level; raises a `DataError` if an argument of ``predict_frame`` is invalid."""
    if as_ not in ("pandas", "polars"):
        raise DataError(f"as_ must be 'pandas' or 'polars', got {as_!r}.")
    if names not in ("ehrmeta", "meds"):
        raise DataError(f"names must be 'ehrmeta' or 'meds', got {names!r}.")
    return check_level(confidence_level)


def join_rows(
    known: npt.NDArray[np.bool_],
    adapted: Mapping[str, Column] | None,
    new: Mapping[str, Column],
    *,
    is_missing: bool,
) -> dict[str, Column]:
    """Columns of all rows, from those of the rows whose tasks were adapted and of the others.

    Parameters
    ----------
    known : (row,)
        Whether the row's task was adapted.
    adapted : mapping of str to ndarray, (known row, ...), optional
        Predictions of these rows.
    new : mapping of str to ndarray, (other row, ...)
        Predictions of the other rows.
    is_missing : bool
        Whether the other rows are NaN instead; `new` then gives shapes and types only.

    Examples
    --------
    >>> known = np.array([True, False])
    >>> join_rows(known, {"mean": np.array([3.0])}, {"mean": np.array([1.0])}, is_missing=False)
    {'mean': array([3., 1.])}
    """
    columns = {}
    for name, other in new.items():
        shape, dtype = (len(known), *other.shape[1:]), other.dtype
        if is_missing:
            values = np.full(shape, np.nan, np.float64 if dtype.kind in "biuf" else object)
        else:
            values = np.empty(shape, dtype)
            values[~known] = other
        if adapted is not None:
            values[known] = adapted[name]
        columns[name] = values
    return columns


def _in_meds_names(rows: Mapping[str, Column]) -> dict[str, Column]:
    """Subject, time and probability, in the names that evaluators of MEDS labels read."""
    missing = [name for name in ("task", "time") if name not in rows]
    if missing:
        raise DataError(
            f"names='meds' needs a subject and a prediction time, but {' and '.join(missing)} "
            "are missing. Pass groups= and time=, or take names='ehrmeta' and add the columns."
        )
    if "risk" not in rows:
        raise DataError(
            "names='meds' needs the probability of one of two classes. Use a MetaClassifier of "
            "two classes, or names='ehrmeta'."
        )
    time = rows["time"]
    if time.dtype.kind == "M":
        time = time.astype("datetime64[us]")
    return {
        "subject_id": rows["task"],
        "prediction_time": time,
        "predicted_boolean_probability": rows["risk"],
    }


def refuse_overflow(columns: Mapping[str, npt.NDArray[Any]]) -> None:
    """Raise a `DataError` if a prediction overflowed, because weights or values are too large.

    Examples
    --------
    >>> refuse_overflow({"mean": np.array([1.0, np.inf])})
    Traceback (most recent call last):
    ehrmeta.errors.DataError: the predictions of 1 of 2 rows are not finite...
    """
    for values in columns.values():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            bad = ~np.isfinite(values).reshape(len(values), -1).all(1)
            raise DataError(
                f"the predictions of {int(bad.sum()):,} of {len(bad):,} rows are not finite: their "
                "values, those of their supports, or weights of the model are too large. Check the "
                "units, or fit the model again."
            )
