"""Encoding of features and outcomes, with scales and levels from training rows only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data.columns import level_names, refuse_rows, require_columns
from ehrmeta.data.schema import Feature, Transform
from ehrmeta.data.tasks import index_tasks
from ehrmeta.errors import DataError, Remedy, SchemaError

Floats = NDArray[np.float32]
CLIP = 8.0  # robust standard deviations
_LARGEST_OUTCOME = 1e30  # above, float32 arithmetic overflows
_MOST_SDS = 1e6  # from the training mean: above, adapted networks overflow


@dataclass(frozen=True)
class Coding:
    """Fitted encoding of one feature.

    Attributes
    ----------
    center, scale : float
        Of a numeric or binary feature; scale 0 if it was constant in training.
    levels : tuple of str
        Of a categorical feature.
    missing : bool
        Whether it was missing in a training row.
    """

    center: float = 0.0
    scale: float = 0.0
    levels: tuple[str, ...] = ()
    missing: bool = False


@dataclass(frozen=True)
class Encoder:
    """Encodes feature columns as numbers, with scales and levels of the training rows.

    Numeric and binary features are scaled to ``(v - median) / (IQR / 1.349)`` (the standard
    deviation if the IQR is 0), by block for features with a block, and clipped at +-8. A missing
    value becomes 0, with an indicator column if values were missing in training. Categorical
    features become one column per level that enough training tasks have, one for all other levels,
    and one for missing if there were any. Measured features are a separate array, NaN if missing.

    Attributes
    ----------
    features : tuple of Feature
    codings : tuple of Coding
        One per feature.

    Examples
    --------
    >>> columns = {"age": np.array([50.0, 60.0, 70.0])}
    >>> encoder = Encoder.fit(columns, (Feature("age", unit="a"),))
    >>> fixed, measured = encoder.transform(columns)
    >>> fixed, measured.shape
    (array([[-1.349],
           [ 0.   ],
           [ 1.349]], dtype=float32), (3, 0))
    """

    features: tuple[Feature, ...]
    codings: tuple[Coding, ...]

    @classmethod
    def fit(
        cls,
        columns: Mapping[str, NDArray[Any]],
        features: tuple[Feature, ...],
        *,
        groups: Any = None,
        min_level_count: int = 10,
    ) -> Encoder:
        """Learn scales and levels.

        Parameters
        ----------
        columns : mapping of str to ndarray, (row,)
            As `read_columns` returns them; training rows only.
        features : tuple of Feature
        groups : array-like, (row,), optional
            Task ids; without them every row counts as a task.
        min_level_count : int
            Levels of fewer tasks are encoded as other, and not named in a saved model.

        Raises
        ------
        SchemaError
            A feature is not a column, or is numeric but holds text.
        """
        codes = None if groups is None else index_tasks(groups).codes
        of_block = {}
        for block in {f.block for f in features if f.block}:
            values = [_numbers(columns, f) for f in features if f.block == block]
            of_block[block] = _fit_scale(np.concatenate(values))
        codings = tuple(
            _fit_levels(_levels(columns, f), codes, min_level_count)
            if f.kind == "categorical"
            else _fit_numbers(_numbers(columns, f), of_block.get(f.block))
            for f in features
        )
        return cls(tuple(features), codings)

    @cached_property
    def fixed_names(self) -> tuple[str, ...]:
        """Encoded columns of known and static features."""
        return self._names_of(measured=False)

    @cached_property
    def measured_names(self) -> tuple[str, ...]:
        """Encoded columns of measured features."""
        return self._names_of(measured=True)

    def _names_of(self, *, measured: bool) -> tuple[str, ...]:
        pairs = zip(self.features, self.codings, strict=True)
        chosen = (pair for pair in pairs if (pair[0].role == "measured") == measured)
        return tuple(name for feature, coding in chosen for name in _names(feature, coding))

    @cached_property
    def places(self) -> tuple[slice, ...]:
        """Encoded columns of every feature, in the measured or the fixed array."""
        places, at = [], {True: 0, False: 0}
        for feature, coding in zip(self.features, self.codings, strict=True):
            start = at[feature.role == "measured"]
            at[feature.role == "measured"] = stop = start + len(_names(feature, coding))
            places.append(slice(start, stop))
        return tuple(places)

    def transform(self, columns: Mapping[str, NDArray[Any]]) -> tuple[Floats, Floats]:
        """Encode rows; columns that are not features are ignored.

        Parameters
        ----------
        columns : mapping of str to ndarray, (row,)

        Returns
        -------
        fixed : ndarray of float32, (row, len(fixed_names))
        measured : ndarray of float32, (row, len(measured_names))
            NaN if missing.
        """
        n_rows = len(next(iter(columns.values()))) if columns else 0
        fixed = np.zeros((n_rows, len(self.fixed_names)), dtype=np.float32)
        measured = np.zeros((n_rows, len(self.measured_names)), dtype=np.float32)
        for feature, coding, place in zip(self.features, self.codings, self.places, strict=True):
            out = (measured if feature.role == "measured" else fixed)[:, place]
            if feature.kind == "categorical":
                _write_levels(_levels(columns, feature), feature, coding, out)
            else:
                _write_scaled(_numbers(columns, feature), feature, coding, out)
        return fixed, measured

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe values for `from_dict`."""
        return {
            "features": [dataclasses.asdict(f) for f in self.features],
            "codings": [dataclasses.asdict(c) | {"levels": list(c.levels)} for c in self.codings],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Encoder:
        """Restore an encoder from `to_dict`."""
        return cls(
            tuple(Feature(**f) for f in values["features"]),
            tuple(Coding(**c | {"levels": tuple(c["levels"])}) for c in values["codings"]),
        )


def _numbers(columns: Mapping[str, NDArray[Any]], feature: Feature) -> NDArray[np.float64]:
    require_columns(columns, (feature.name,))
    values = columns[feature.name]
    if values.dtype.kind not in "biuf":
        held = "dates" if values.dtype.kind in "mM" else "text"
        advice = "Convert it to numbers, or declare it kind='categorical' at fit."
        raise SchemaError(
            f"column '{feature.name}' is a {feature.kind} feature, but holds {held}.",
            Remedy("numbers-at-fit", advice),
        )
    numbers = values.astype(np.float64)
    remedy = "Replace it by NaN or by a number."
    refuse_rows(np.isinf(numbers), f"column '{feature.name}' holds infinity", remedy)
    return numbers


def _levels(columns: Mapping[str, NDArray[Any]], feature: Feature) -> pd.Categorical:
    require_columns(columns, (feature.name,))
    values = columns[feature.name]
    if values.dtype.kind in "mM":
        raise SchemaError(
            f"column '{feature.name}' holds dates and cannot be a category. Convert it to a number "
            "such as age, or drop it."
        )
    codes, levels = pd.factorize(values, use_na_sentinel=True)
    names = level_names(np.asarray(levels))
    return pd.Categorical.from_codes(codes, categories=pd.Index(names, dtype=object))


def _fit_scale(values: NDArray[np.float64]) -> Coding:
    present = values[~np.isnan(values)]
    missing = len(present) < len(values)
    if len(present) == 0 or np.ptp(present) == 0:
        return Coding(float(present[0]) if len(present) else 0.0, 0.0, (), missing)
    low, median, high = (float(q) for q in np.percentile(present, (25, 50, 75)))
    scale = (high - low) / 1.349 or float(np.std(present)) or 1.0
    return Coding(median, scale, (), missing)


def _fit_numbers(values: NDArray[np.float64], block: Coding | None) -> Coding:
    """Scale of a column: that of its block, if any, else of its values."""
    if block is None:
        return _fit_scale(values)
    return dataclasses.replace(block, missing=bool(np.isnan(values).any()))


def _fit_levels(values: pd.Categorical, tasks: NDArray[np.int64] | None, min_count: int) -> Coding:
    codes = np.asarray(values.codes, dtype=np.int64)
    missing = bool((codes < 0).any())
    present = codes[codes >= 0]
    if tasks is not None and len(present):
        n_levels = len(values.categories)
        present = pd.unique(tasks[codes >= 0] * n_levels + present) % n_levels  # once per task
    counts = np.bincount(present, minlength=len(values.categories))
    levels = tuple(
        sorted(level for level, n in zip(values.categories, counts, strict=True) if n >= min_count)
    )
    return Coding(levels=levels, missing=missing)


def _names(feature: Feature, coding: Coding) -> list[str]:
    """Encoded columns of a feature; measured ones have NaN instead of other and missing."""
    is_category, is_fixed = feature.kind == "categorical", feature.role != "measured"
    names = (
        [f"{feature.name}={level}" for level in coding.levels] if is_category else [feature.name]
    )
    names += [f"{feature.name} other"] if is_category and is_fixed else []
    return names + ([f"{feature.name} missing"] if coding.missing and is_fixed else [])


def _write_scaled(
    values: NDArray[np.float64], feature: Feature, coding: Coding, out: Floats
) -> None:
    missing = np.isnan(values)
    if coding.scale > 0:
        with np.errstate(over="ignore"):
            scaled = (values - coding.center) / coding.scale
        out[:, 0] = np.minimum(np.maximum(scaled, -CLIP), CLIP)  # faster than np.clip for few rows
    out[missing, 0] = np.nan if feature.role == "measured" else 0.0
    if feature.role != "measured" and coding.missing:
        out[:, 1] = missing


def _write_levels(values: pd.Categorical, feature: Feature, coding: Coding, out: Floats) -> None:
    place = {level: i for i, level in enumerate(coding.levels)}
    other = len(place)
    lookup = np.array([*(place.get(level, other) for level in values.categories), -1])
    column = lookup[values.codes]  # code -1 (missing) reads the last entry
    if feature.role == "measured":
        for i in range(len(place)):
            out[:, i] = column == i
        out[column < 0] = np.nan
        return
    column = np.where(column < 0, other + 1 if coding.missing else other, column)
    out[np.arange(len(column)), column] = 1.0


@dataclass(frozen=True)
class OutcomeScale:
    """Scale of the outcome: ``z = (g(y) - center) / scale``, g the log, square root or identity.

    Examples
    --------
    >>> scale = OutcomeScale.fit([1.0, 10.0, 100.0], transform="log")
    >>> scale.inverse(scale.forward([5.0])).round(6).tolist()
    [5.0]
    """

    center: float = 0.0
    scale: float = 1.0
    transform: Transform | None = None
    name: str = "y"

    @classmethod
    def fit(cls, y: Any, transform: Transform | None = None, name: str = "y") -> OutcomeScale:
        """Fit mean and standard deviation after the transform; a constant has scale 1."""
        g = _apply(y, transform, name)
        if len(g) == 0:
            raise DataError(f"outcome '{name}' has no rows. Pass at least one.")
        if np.abs(g).max() > _LARGEST_OUTCOME:
            raise DataError(
                f"outcome '{name}' exceeds {_LARGEST_OUTCOME:g} in size. Check its unit."
            )
        sd = float(np.std(g)) if np.ptp(g) > 0 else 0.0
        return cls(float(np.mean(g)), sd or 1.0, transform, name)

    def forward(self, y: Any) -> NDArray[np.float64]:
        """Outcome to learner's scale, (row,); raises beyond a million standard deviations."""
        z = (_apply(y, self.transform, self.name) - self.center) / self.scale
        what = f"outcome '{self.name}' is over {_MOST_SDS:g} standard deviations from the mean"
        refuse_rows(np.abs(z) > _MOST_SDS, what, "Check its unit, or drop these rows.")
        return z

    def inverse(self, z: Any) -> NDArray[np.float64]:
        """Learner's scale to outcome, of any shape; monotone, so it maps quantiles to quantiles."""
        g = np.asarray(z, dtype=np.float64) * self.scale + self.center
        if self.transform == "log":
            with np.errstate(over="ignore"):
                return np.exp(g)
        return np.maximum(g, 0.0) ** 2 if self.transform == "sqrt" else g

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe values for `from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OutcomeScale:
        """Restore a scale from `to_dict`."""
        return cls(**values)


def _apply(y: Any, transform: Transform | None, name: str) -> NDArray[np.float64]:
    values = np.asarray(y, dtype=np.float64)
    what = f"outcome '{name}' is missing (NaN) or infinite (inf)"
    refuse_rows(~np.isfinite(values), what, "Drop those rows.")
    if transform is None:
        return values
    outside = values <= 0 if transform == "log" else values < 0
    sign = "zero or negative" if transform == "log" else "negative"
    remedy = f"The {transform} does not exist: drop these rows or choose another transform."
    refuse_rows(outside, f"outcome '{name}' is {sign}", remedy)
    return np.log(values) if transform == "log" else np.sqrt(values)
