"""Adapted tasks in a file: the encoded support and the labels, which are patient data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ehrmeta.errors import BundleError
from ehrmeta.nn.batch import TaskRows

__all__ = [
    "label_bytes",
    "label_type",
    "read_labels",
    "read_support",
    "support_tensors",
    "tensor_like",
]

_SUPPORT = ("x", "measured", "time", "y", "origin", "starts")
_DATES = "datetime64[ns]"  # the one type of labels that JSON does not hold


def support_tensors(support: TaskRows) -> dict[str, Tensor]:
    """The encoded support; a file holds finite numbers only, so missing values are a mask."""
    tensors = {f"support.{name}": getattr(support, name) for name in _SUPPORT}
    missing = support.measured.isnan()
    tensors["support.measured"] = support.measured.masked_fill(missing, 0.0)
    if support.offset.any():  # drawn by their outcome
        tensors["support.offset"] = support.offset
    return tensors | {"support.missing": missing}


def read_support(tensors: Mapping[str, Tensor], none: TaskRows) -> TaskRows:
    """The inverse of `support_tensors`, checked to be rows like those of `none`, which has none."""
    n_rows = len(tensors["support.y"])
    like = {name: getattr(none, name) for name in _SUPPORT[:-1]}
    like["missing"] = none.measured.isnan()
    if "support.offset" in tensors:
        like["offset"] = none.offset
    columns = {
        name: tensor_like(tensors, f"support.{name}", empty.new_empty(n_rows, *empty.shape[1:]))
        for name, empty in like.items()
    }
    starts = tensors["support.starts"]
    divides = starts.dtype == torch.int64 and starts.ndim == 1 and len(starts) > 1
    if not (divides and starts[0] == 0 and starts[-1] == n_rows and (starts.diff() >= 0).all()):
        raise BundleError("its support rows do not divide into tasks.")
    columns["measured"] = columns["measured"].masked_fill(columns.pop("missing"), math.nan)
    return TaskRows(**columns, starts=starts, timed=none.timed)


def tensor_like(tensors: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    """A tensor of the file, of the shape and type its settings ask for."""
    if name not in tensors:
        raise BundleError(f"tensor {name!r} is missing.")
    value = tensors[name]
    if value.shape != like.shape or value.dtype != like.dtype:
        raise BundleError(
            f"tensor {name!r} is {tuple(value.shape)} {value.dtype}; its settings ask for "
            f"{tuple(like.shape)} {like.dtype}."
        )
    return value


def label_type(labels: npt.NDArray[Any]) -> str:
    """What a file says of the labels' type."""
    return "object" if labels.dtype.kind in "OU" else str(labels.dtype)


def label_bytes(labels: npt.NDArray[Any]) -> Tensor:
    """Labels as the bytes of a JSON list."""
    plain = labels.view(np.int64) if labels.dtype.kind == "M" else labels
    text = json.dumps(plain.tolist()).encode()
    return torch.from_numpy(np.frombuffer(text, np.uint8).copy())


def read_labels(text: Tensor, dtype: str, n_tasks: int) -> npt.NDArray[Any]:
    """The inverse of `label_bytes`."""
    plain = json.loads(text.numpy().tobytes())
    is_date = dtype == _DATES
    if not (is_date or dtype == "object" or np.dtype(dtype).kind in "biuf"):
        raise BundleError(f"its task labels are {dtype!r}, which no file may hold.")
    if not all(isinstance(label, str | int | float) for label in plain):
        raise BundleError("its task labels are neither text nor numbers.")
    if len(set(plain)) != len(plain) or len(plain) != n_tasks:
        raise BundleError(f"it has {len(plain)} task labels for {n_tasks} tasks.")
    return np.asarray(plain, np.int64).view(_DATES) if is_date else np.asarray(plain, dtype)
