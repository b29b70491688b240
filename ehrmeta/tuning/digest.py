"""Digests that tell whether two studies are about the same: no value can be read back from them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, clone

from ehrmeta.estimators.inputs import schema_of
from ehrmeta.tuning.measures import Rows
from ehrmeta.tuning.objective import Fold

__all__ = ["data_digest", "folds_digest", "model_digest"]

_NO_MATTER = {"device": "auto", "verbose": None, "callbacks": (), "chunk_size": None}


def data_digest(estimator: Any, rows: Rows) -> str:
    """SHA-256 of features, outcome, times and which rows are one patient's; ids do not matter."""
    schema = schema_of(estimator.schema, rows.X)
    inputs = estimator._read(rows.X, rows.y, rows.groups, rows.time, schema)
    parts = [*sorted(inputs.columns.items()), ("outcome", inputs.outcome()), ("tasks", rows.tasks)]
    if inputs.time is not None:
        parts.append(("time", inputs.time))
    digest = hashlib.sha256()
    for name, values in parts:
        digest.update(f"{name} {len(values)};".encode())
        digest.update(_as_bytes(values))
    return digest.hexdigest()


def folds_digest(folds: Sequence[Fold]) -> str:
    """SHA-256 of who is held out when, and judged in which block."""
    digest = hashlib.sha256()
    for fold in folds:
        digest.update(_as_bytes(fold.test.tasks) + b";" + _as_bytes(fold.blocks) + b";")
    return digest.hexdigest()


def model_digest(estimator: BaseEstimator) -> str:
    """SHA-256 of an estimator's parameters, as far as results depend on them."""
    model = clone(estimator)
    known = model.get_params(deep=False)
    model.set_params(**{name: value for name, value in _NO_MATTER.items() if name in known})
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(model.get_params(deep=True)))  # of this process only
    return hashlib.sha256(text.encode()).hexdigest()


def _as_bytes(values: npt.NDArray[Any]) -> bytes:
    array = np.asarray(values)
    if array.dtype == object:
        return "\x1f".join(map(str, array)).encode()
    return np.ascontiguousarray(array).tobytes()
