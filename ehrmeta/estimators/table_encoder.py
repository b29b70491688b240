"""Encoding of tables as task rows, fitted on training tasks only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.utils.multiclass import check_classification_targets

from ehrmeta.data import Encoder, Feature, OutcomeScale, Schema
from ehrmeta.data.columns import require_columns
from ehrmeta.data.findings import odd_codes
from ehrmeta.data.roles import find_measured
from ehrmeta.data.validation import outside_range
from ehrmeta.errors import DataError, DataWarning, SchemaError, warn
from ehrmeta.estimators.files import label_type
from ehrmeta.estimators.inputs import Inputs
from ehrmeta.nn.batch import TaskRows

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TableEncoder:
    """Feature encoding, outcome scale and time unit of a fitted model.

    Parameters
    ----------
    features : tuple of Feature
        Feature columns in the order of fit.
    encoder : Encoder
        Scaling and one-hot encoding.
    outcome : OutcomeScale or Classes
        Maps the outcome to the learner's scale.
    timed : bool
        Whether the model was fitted with time.
    time_unit : float
        Median time between visits of a training task.
    time_center, time_scale : float
        Standardise the clock if it is a feature.
    dated : bool
        Whether the training times were dates.
    clock_is_feature : bool
        Whether the clock's origin is known ahead, so that time can be a feature.
    zoned : bool, optional
        Whether the training times were dates with a time zone; None for numbers and in older files.
    period : (float, float), optional
        First and last training time, rounded outwards to whole standard deviations from the mean;
        None without time and in older files.
    """

    features: tuple[Feature, ...]
    encoder: Encoder
    outcome: Any
    timed: bool
    time_unit: float
    time_center: float
    time_scale: float
    dated: bool
    clock_is_feature: bool
    zoned: bool | None = None
    period: tuple[float, float] | None = None

    @classmethod
    def fit(
        cls,
        inputs: Inputs,
        schema: Schema | None,
        outcome: OutcomeScale | Classes,
        known: Sequence[str] | None = None,
    ) -> TableEncoder:
        """Fit on the training tasks; `known` as in `MetaRegressor`."""
        features = _features(inputs, schema, known)
        unit, center, scale, period = 1.0, 0.0, 1.0, None
        if inputs.time is not None:
            tasks = inputs.tasks()
            time = inputs.time[tasks.order]
            gaps = np.diff(time)[np.diff(tasks.codes[tasks.order]) == 0]
            gaps = gaps[gaps > 0]
            unit = float(np.median(gaps)) if len(gaps) else 1.0
            center, scale = float(time.mean()), float(time.std()) or 1.0
            first, last = (
                np.floor((time.min() - center) / scale),
                np.ceil((time.max() - center) / scale),
            )
            period = float(center + first * scale), float(center + last * scale)
        clock = schema.time if schema is not None else None
        in_cohorts = schema is not None and schema.task_kind == "cohort"
        several_classes = isinstance(outcome, Classes) and len(outcome.labels) > 2
        encoder = Encoder.fit(
            _plausible(inputs.columns, features),
            features,
            groups=None if in_cohorts else inputs.groups,
            y=None if several_classes else outcome.forward(inputs.outcome()),
        )
        return cls(
            features=features,
            encoder=encoder,
            outcome=outcome,
            timed=inputs.time is not None,
            time_unit=unit,
            time_center=center,
            time_scale=scale,
            dated=inputs.dates is not None,
            clock_is_feature=inputs.time is not None and (clock is None or clock.is_feature),
            zoned=inputs.zoned,
            period=period,
        )

    def rows(
        self, inputs: Inputs, codes: npt.NDArray[np.int64], n_tasks: int, *, of_fit: bool = False
    ) -> TaskRows:
        """Encode the rows of a call; `codes` (row,) are their task numbers.

        Levels of few patients are shrunk, except in rows `of_fit`, from which they are learned.
        """
        fixed = measured = np.zeros((inputs.n_rows, 0), np.float32)  # without features
        if self.features:
            columns = _plausible(inputs.columns, self.features)
            fixed, measured = self.encoder.transform(columns, shrink=not of_fit)
        time = np.zeros(inputs.n_rows) if inputs.time is None else inputs.time
        if self.clock_is_feature:
            standard = np.clip((time - self.time_center) / self.time_scale, -8.0, 8.0)
            fixed = np.column_stack([fixed, standard.astype(np.float32)])
        if inputs.y is None:
            y = np.full(inputs.n_rows, np.nan, np.float32)
        else:
            y = self.outcome.forward(inputs.y).astype(np.float32)
        return TaskRows.from_codes(
            torch.from_numpy(codes),
            n_tasks,
            timed=self.timed,
            x=torch.from_numpy(fixed),
            measured=torch.from_numpy(measured),
            time=torch.from_numpy(time),
            y=torch.from_numpy(y),
            origin=torch.arange(inputs.n_rows),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe state; `from_dict` restores it exactly."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return plain | {
            "features": [asdict(feature) for feature in self.features],
            "encoder": self.encoder.to_dict(),
            "outcome": self.outcome.to_dict(),
            "period": None if self.period is None else list(self.period),
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> TableEncoder:
        """The inverse of `to_dict`."""
        outcome = Classes if "labels" in state["outcome"] else OutcomeScale
        return cls(
            **{
                **state,
                "features": tuple(Feature(**feature) for feature in state["features"]),
                "encoder": Encoder.from_dict(state["encoder"]),
                "outcome": outcome.from_dict(state["outcome"]),
                "period": tuple(state["period"]) if state.get("period") else None,
            }
        )


def _features(
    inputs: Inputs, schema: Schema | None, known: Sequence[str] | None
) -> tuple[Feature, ...]:
    """Features of the schema, checked against the columns; inferred without a schema."""
    columns = inputs.columns
    require_columns(columns, known or ())
    if not columns:
        return ()
    if schema is None:
        return _infer_features(inputs, known)
    missing = [name for name in schema.names if name not in columns]
    unknown = [name for name in columns if name not in schema.names]
    if missing or unknown:
        raise SchemaError(
            f"the columns of X are not the features of the schema: missing {missing}, not in the "
            f"schema {unknown}. Select X[list(schema.names)], or add the columns to the schema."
        )
    ignored = [name for name in known or () if name in schema.measured]
    if ignored:
        warn(
            f"column(s) {ignored} of known= are measured in the schema, which has priority. "
            "Declare role='known' there.",
            DataWarning,
        )
    return schema.features


def _infer_features(inputs: Inputs, known: Sequence[str] | None) -> tuple[Feature, ...]:
    """Infer features from the columns; those known only at the visit become measured."""
    columns = inputs.columns
    features = Schema.infer(pd.DataFrame(dict(columns))).features
    odd = tuple(odd_codes(dict(columns), columns))
    if odd:
        warn(DataWarning(*odd))
    if inputs.time is None or inputs.groups is None:
        return features
    undeclared = [name for name in columns if name not in (known or ())]
    inferred = find_measured(columns, undeclared, inputs.groups, inputs.time)
    if known is None:
        inferred.warn()
    return tuple(
        replace(feature, role="measured") if feature.name in inferred.n_varying else feature
        for feature in features
    )


def _plausible(columns: Mapping[str, Array], features: tuple[Feature, ...]) -> dict[str, Array]:
    """Set values outside their plausible range to NaN, with one warning."""
    plausible, masked = dict(columns), []
    for feature in features:
        has_range = feature.low is not None or feature.high is not None
        if not has_range or columns[feature.name].dtype.kind not in "iuf":
            continue
        values = columns[feature.name].astype(np.float64)
        outside = outside_range(values, feature)
        if outside.any():
            plausible[feature.name] = np.where(outside, np.nan, values)
            counted = f"{int(outside.sum()):,} (range {feature.low} to {feature.high})"
            masked.append(f"'{feature.name}': {counted}")
    if masked:
        warn(
            f"values outside their plausible range count as missing: {', '.join(masked)}. Check "
            "their units.",
            DataWarning,
        )
    return plausible


@dataclass(frozen=True, eq=False)
class Classes:
    """Sorted class labels of a fitted classifier; class numbers are positions in `labels`.

    Examples
    --------
    >>> classes = Classes.fit(np.array(["yes", "no", "yes"]))
    >>> classes.forward(np.array(["no", "yes"])).tolist()
    [0.0, 1.0]
    """

    labels: Array  # (class,)

    @classmethod
    def fit(cls, y: Array) -> Classes:
        """Classes of the training outcomes."""
        try:
            check_classification_targets(y)
        except ValueError as error:
            raise DataError(
                f"{error} Use MetaRegressor for real-valued outcomes; classes must be whole "
                "numbers or text."
            ) from error
        labels = np.unique(y)
        if len(labels) < 2:
            raise DataError(
                f"the outcome holds only one class in all {len(y):,} rows: a classifier needs at "
                "least two. Check the column and the selection of rows."
            )
        return cls(labels)

    def forward(self, y: Array) -> npt.NDArray[np.float64]:
        """Index of every row's class, (row,)."""
        if len(y) == 0:
            return np.empty(0)
        is_text = self.labels.dtype.kind in "OU"
        if (y.dtype.kind in "OU") != is_text:
            expected = "text" if is_text else "numbers"
            raise DataError(f"the outcome's classes were {expected} at fit. Pass the same labels.")
        codes = np.searchsorted(self.labels, y).clip(max=len(self.labels) - 1)
        unknown = self.labels[codes] != y
        if unknown.any():
            raise DataError(
                f"the outcome holds classes unseen at fit in {int(unknown.sum()):,} of {len(y):,} "
                f"rows (first: row {int(np.flatnonzero(unknown)[0])}); the model knows "
                f"{len(self.labels)} classes. Map them to known classes or fit again with them."
            )
        return codes.astype(np.float64)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe state; `from_dict` restores it exactly."""
        return {"labels": self.labels.tolist(), "dtype": label_type(self.labels)}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Classes:
        """The inverse of `to_dict`."""
        dtype = np.dtype(state["dtype"])
        if dtype.kind not in "biufO":  # a type of fixed width could allocate any memory
            raise DataError(f"class labels cannot have type {state['dtype']!r}.")
        return cls(np.asarray(state["labels"], dtype=dtype))
