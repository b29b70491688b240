"""Treatment columns: arms coded as numbers with the control as 0, or a continuous dose."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data import read_column
from ehrmeta.errors import DataError, DataWarning, did_you_mean, warn

_CONTROL = re.compile(r"placebo|control|sham|untreated|usual|standard|^no(ne)?$", re.IGNORECASE)
_MANY_ARMS = 20
_MIN_TASKS = 10  # tasks that must reach a dose before it may be written to a file
Array = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]
AnyArray = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Arms:
    """Arm labels, numbered with the control as 0.

    Examples
    --------
    >>> arms = Arms.fit(["drug", "placebo", "drug"], control="placebo")
    >>> arms.labels.tolist(), arms.codes(["drug", "placebo"]).tolist()
    (['placebo', 'drug'], [1, 0])
    """

    labels: AnyArray  # (arm,): the control, then the others in sorted order

    @classmethod
    def fit(cls, treatment: Any, control: Any = None) -> Arms:
        """Learn the arms of a column. The default control is the first label in sorted order."""
        values = read_treatment(treatment)
        labels = np.asarray(pd.unique(values))
        labels = labels[np.argsort(labels, kind="stable")]
        if len(labels) < 2:
            raise DataError(
                f"treatment has {len(labels)} arm in all {len(values):,} rows, but an effect "
                "compares two arms. Add rows of another arm."
            )
        if len(labels) > _MANY_ARMS and labels.dtype.kind in "iuf":
            raise DataError(
                f"treatment has {len(labels)} different numbers, too many for arms. If it is a "
                "dose, pass discrete_treatment=False."
            )
        if control is None:
            _warn_of_likely_control(labels)
            return cls(labels)
        first = labels == control
        if not first.any():
            raise DataError(
                f"control={control!r} is not an arm. "
                f"{did_you_mean(str(control), [str(label) for label in labels])}"
            )
        return cls(np.concatenate([labels[first], labels[~first]]))

    @property
    def n_arms(self) -> int:
        """Number of arms, the control included."""
        return len(self.labels)

    def codes(self, treatment: Any) -> Index:
        """Arm number of each row, (row,).

        Raises
        ------
        DataError
            An arm was not seen at fit, or values are missing.
        """
        values = read_treatment(treatment)
        codes = pd.Index(self.labels).get_indexer(pd.Index(values))
        unseen = np.flatnonzero(codes < 0)
        if len(unseen):
            raise DataError(
                f"treatment has values in {len(unseen):,} of {len(values):,} rows (first: row "
                f"{unseen[0]}) that were not seen at fit. Arms: "
                f"{', '.join(repr(str(label)) for label in self.labels)}. Remove those rows, or "
                "fit with rows of that arm."
            )
        return np.asarray(codes, dtype=np.int64)

    def code(self, arm: Any) -> int:
        """Number of one arm."""
        return int(self.codes([arm])[0])

    def pair(self, T0: Any = None, T1: Any = None) -> tuple[Array, Array]:
        """Two arms, encoded by `vector`; by default the control and the only other arm."""
        if T1 is None and self.n_arms > 2:
            raise DataError(
                f"there are {self.n_arms} arms, so T1= is required. Pass one of "
                f"{', '.join(repr(str(label)) for label in self.labels[1:])}."
            )
        return (
            self.vector(self.labels[0] if T0 is None else T0),
            self.vector(self.labels[1] if T1 is None else T1),
        )

    def codes_of(self, T0: Any = None, T1: Any = None) -> tuple[int, int]:
        """Arm numbers of two arms, with the defaults of `pair`."""
        zero, one = self.pair(T0, T1)
        return int(zero @ np.arange(1, self.n_arms)), int(one @ np.arange(1, self.n_arms))

    def costs(self, costs: Mapping[Any, float] | None) -> Array:
        """Cost of every arm, (arm,); 0 by default."""
        by_arm = np.zeros(self.n_arms)
        for arm, value in (costs or {}).items():
            by_arm[self.code(arm)] = value
        if not np.isfinite(by_arm).all():
            raise DataError("costs must be finite numbers, in the unit of the outcome.")
        return by_arm

    def vector(self, T: Any) -> Array:
        """Indicators of the non-control arms, (n_arms - 1,); all 0 for the control."""
        return np.eye(self.n_arms)[self.code(T), 1:]

    @property
    def vectors(self) -> Array:
        """All arms, encoded by `vector`, (arm, n_arms - 1)."""
        return np.eye(self.n_arms)[:, 1:]


def _warn_of_likely_control(labels: AnyArray) -> None:
    """Warn if the first label is the control although another one is named as such."""
    likely = [str(label) for label in labels[1:] if _CONTROL.search(str(label))]
    if likely and not _CONTROL.search(str(labels[0])):
        warn(
            f"the control is {str(labels[0])!r}, the first arm in sorted order, but {likely[0]!r} "
            "may be meant. Pass control=, or an ordered categorical.",
            DataWarning,
        )


@dataclass(frozen=True)
class Dose:
    """A continuous treatment."""

    # low, high: smallest and largest dose of the training rows
    low: float
    high: float
    # (low, high): range that may be written to a file; at least ten tasks reach each end
    shared: tuple[float, ...] = (-np.inf, np.inf)

    @classmethod
    def fit(cls, treatment: Any, name: str = "treatment", groups: Any = None) -> Dose:
        """Learn the range of a column of doses; `name` is used in error messages."""
        dose = _numbers(treatment, name)
        if np.ptp(dose) == 0:
            raise DataError(
                f"the dose is the same in all {len(dose):,} rows, so its effect cannot be learned. "
                "Add rows with other doses."
            )
        task = np.arange(len(dose)) if groups is None else groups
        ends = pd.Series(dose).groupby(task).agg(["min", "max"])
        low, high = np.sort(ends["min"])[:_MIN_TASKS], np.sort(ends["max"])[-_MIN_TASKS:]
        shared = (float(low[-1]), float(high[0])) if len(low) == _MIN_TASKS else cls.shared
        return cls(float(dose.min()), float(dose.max()), shared)

    def codes(self, treatment: Any, name: str = "treatment") -> Array:
        """The doses, (row,)."""
        return _numbers(treatment, name)

    def pair(self, T0: Any = None, T1: Any = None) -> tuple[Array, Array]:
        """Two doses, encoded by `vector`; 0 and 1 by default."""
        return self.vector(0.0 if T0 is None else T0), self.vector(1.0 if T1 is None else T1)

    def vector(self, T: Any) -> Array:
        """Doses as features: one dose, (1,), or one per row, (row, 1)."""
        dose = np.asarray(T, dtype=np.float64)
        return dose.reshape(-1, 1) if dose.ndim else dose[None]

    @property
    def vectors(self) -> Array:
        """Doses 0 and 1, (2, 1)."""
        return np.array([[0.0], [1.0]])

    def outside(self, dose: Array) -> Mask:
        """Whether a dose lies outside the training doses."""
        return np.asarray((dose < self.low) | (dose > self.high))

    def warn_if_outside(self, dose: Array) -> None:
        """Warn of doses outside the training doses, where the response is extrapolated."""
        outside = self.outside(np.atleast_1d(dose))
        if outside.any():
            warn(
                f"{int(outside.sum()):,} of {outside.size:,} doses lie outside the training doses "
                f"({self.low:g} to {self.high:g}), so the response is extrapolated there.",
                DataWarning,
            )


def _numbers(treatment: Any, name: str) -> Array:
    values = read_treatment(treatment, name)
    if values.dtype.kind not in "biuf":
        arms = "; pass discrete_treatment=True for arms" if name == "treatment" else ""
        raise DataError(
            f"{name} contains text or dates, but a dose must be a number. Convert it with "
            f"pd.to_numeric{arms}."
        )
    return values.astype(np.float64)


def first_category(treatment: Any) -> Any:
    """First category that occurs in an ordered categorical or a polars Enum; else None.

    Examples
    --------
    >>> first_category(pd.Categorical(["b", "a"], categories=["c", "b", "a"], ordered=True))
    'b'
    """
    dtype = getattr(treatment, "dtype", None)
    categories: list[Any] = []
    if isinstance(dtype, pd.CategoricalDtype) and dtype.ordered:
        categories = dtype.categories.tolist()
    elif nw.dependencies.is_polars_series(treatment) and hasattr(dtype, "categories"):
        series = nw.from_native(treatment, series_only=True)
        categories = list(series.dtype.categories) if isinstance(series.dtype, nw.Enum) else []
    present = set(treatment) if categories else set()
    return next((category for category in categories if category in present), None)


def read_treatment(treatment: Any, name: str = "treatment") -> AnyArray:
    """Read a treatment column, (row,); missing values raise `DataError`."""
    if isinstance(getattr(treatment, "dtype", None), pd.CategoricalDtype):
        treatment = np.asarray(treatment)
    values = read_column(treatment, name)
    missing = np.flatnonzero(pd.isna(values))
    if len(missing):
        raise DataError(
            f"{name} is missing in {len(missing):,} of {len(values):,} rows (first: row "
            f"{missing[0]}). Remove those rows: treatments are never imputed."
        )
    return values


def read_probabilities(propensity: Any, arms: Arms) -> Array:
    """Randomisation probability of every arm, (arm,).

    `propensity` maps each arm to its probability or, with two arms, is the probability of the
    non-control arm.

    Examples
    --------
    >>> read_probabilities(0.25, Arms.fit(["a", "b"]))
    array([0.75, 0.25])
    """
    if isinstance(propensity, Mapping):
        codes = arms.codes(list(propensity))
        probabilities = np.full(arms.n_arms, np.nan)
        probabilities[codes] = list(propensity.values())
    else:
        probabilities = _of_two_arms(np.array([float(propensity)]), arms)[0]
    return np.asarray(_checked(probabilities[None])[0])


def read_propensities(propensity: Any, arms: Arms, n_rows: int) -> Array:
    """Known propensities of every arm, (row, arm).

    With two arms, `propensity` may be that of the non-control arm alone, (row,).
    """
    propensities = np.asarray(propensity, dtype=np.float64)
    if propensities.ndim == 1:
        propensities = _of_two_arms(propensities, arms)
    if propensities.shape != (n_rows, arms.n_arms):
        raise DataError(
            f"propensity has shape {propensities.shape}, but there are {n_rows:,} rows and "
            f"{arms.n_arms} arms. Pass an array (row, arm) or, with two arms, the propensity of "
            "the non-control arm in each row."
        )
    return _checked(propensities)


def _of_two_arms(propensities: Array, arms: Arms) -> Array:
    if arms.n_arms > 2:
        raise DataError(
            f"there are {arms.n_arms} arms, so propensity needs one number per arm: pass a mapping "
            "of arm to probability, or an array (row, arm)."
        )
    return np.column_stack([1.0 - propensities, propensities])


def _checked(propensities: Array) -> Array:
    outside = ~((propensities > 0) & (propensities < 1)).all(1)
    if outside.any():
        raise DataError(
            f"propensity is missing or not strictly between 0 and 1 in {int(outside.sum()):,} of "
            f"{len(propensities):,} rows (first: row {int(np.flatnonzero(outside)[0])}). Remove "
            "those rows: a row that could get only one arm is not informative about the effect."
        )
    off = np.abs(propensities.sum(1) - 1) > 1e-6
    if off.any():
        raise DataError(
            f"propensities do not sum to 1 in {int(off.sum()):,} of {len(propensities):,} rows "
            f"(first: row {int(np.flatnonzero(off)[0])}). Rescale them to sum to 1."
        )
    return propensities
