"""Saved calibrations: the model, and the errors it made on calibration patients.

These are standardised errors (of classifiers the probabilities given to the true class) in order
of their size, each with its weight: no row and no id goes with them. Kinds of patients are named
where ten or more are of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from ehrmeta.errors import BundleError
from ehrmeta.estimators.conformal_limits import BetaCalibration, Cell, Limits
from ehrmeta.estimators.file_model import model_settings, model_tensors, restored_model
from ehrmeta.estimators.files import fits_together
from ehrmeta.persistence import read_bundle, write_bundle

if TYPE_CHECKING:
    from ehrmeta.estimators.conformal_base import ConformalEstimator

__all__ = ["load_conformal", "save_conformal"]

Path = str | os.PathLike[str]
Calibrated = TypeVar("Calibrated", bound="ConformalEstimator")


def save_conformal(conformal: ConformalEstimator, path: Path) -> None:
    """Write a calibrated model to one file; see `ConformalRegressor.save`."""
    conformal._check_is_calibrated()
    model: Any = conformal.model
    settings = model_settings(model)  # refuses what a file cannot hold
    cells, tensors = [], model_tensors(model)
    for number, (cell, found) in enumerate(conformal.limits_.items()):
        each = found if isinstance(found, tuple) else (found,)
        cells.append({"cell": list(cell), "n_tasks": [limits.n_tasks for limits in each]})
        for place, limits in enumerate(each):
            tensors[f"limits.{number}.{place}"] = torch.stack(
                [torch.from_numpy(limits.error.copy()), torch.from_numpy(limits.weight.copy())]
            )
    recalibration = [
        {"cell": list(cell), "maps": [[one.a, one.b, one.c] for one in maps]}
        for cell, maps in getattr(conformal, "recalibration_", {}).items()
    ]
    metadata = {
        "kind": "calibrated",
        "class": type(conformal).__name__,
        "model": settings,
        "shots": [int(k) for k in conformal.shots],
        "by": [[name, [float(cut) for cut in cuts]] for name, cuts in conformal._by().items()],
        "cells": cells,
        "recalibration": recalibration,
    }
    write_bundle(path, tensors, metadata)


def load_conformal(path: Path, expected: type[Calibrated], *, device: str = "auto") -> Calibrated:
    """Read a calibrated model; see `ConformalRegressor.load`."""
    tensors, metadata = read_bundle(path)
    if metadata.get("kind") != "calibrated" or metadata.get("class") != expected.__name__:
        raise BundleError(
            f"{os.fspath(path)!r} holds no {expected.__name__}, but another model: open it with "
            "the class that saved it."
        )
    with fits_together(path):
        model = restored_model(metadata["model"], tensors, device)
        by = {str(name): tuple(map(float, cuts)) for name, cuts in metadata["by"]}
        found = expected(model, shots=tuple(metadata["shots"]), by=by or None)
        found._check_model()
        limits = {
            _cell(one["cell"]): tuple(
                _limits(tensors, f"limits.{number}.{place}", n_tasks)
                for place, n_tasks in enumerate(one["n_tasks"])
            )
            for number, one in enumerate(metadata["cells"])
        }
        maps = {
            _cell(one["cell"]): tuple(BetaCalibration(*map(float, abc)) for abc in one["maps"])
            for one in metadata["recalibration"]
        }
        found._restore(limits, maps)
    return found


def _cell(cell: list[Any]) -> Cell:
    k, level = cell
    return None if k is None else int(k), None if level is None else str(level)


def _limits(tensors: Mapping[str, Tensor], name: str, n_tasks: Any) -> Limits:
    pair = tensors[name]
    if pair.dtype != torch.float64 or pair.ndim != 2 or len(pair) != 2:
        raise BundleError(f"tensor {name!r} holds no errors with their weights.")
    error, weight = pair[0], pair[1]
    if bool((error.diff() < 0).any()) or bool((weight <= 0).any()) or type(n_tasks) is not int:
        raise BundleError(f"tensor {name!r} holds no errors in order with their weights.")
    return Limits(error.numpy(), weight.numpy(), n_tasks)
