"""Saved models and saved patients: what of them goes into a file, and how it comes back.

A ``model`` file holds learned weights, the settings and declared summary statistics (scales,
levels held by ten or more tasks), never a task label. An ``adapted`` file holds, beside a model,
the encoded support and the labels of its tasks: patient data, and marked so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from ehrmeta.errors import BundleError, Remedy
from ehrmeta.estimators.file_model import model_settings, model_tensors, restored_model
from ehrmeta.estimators.file_support import (
    label_bytes,
    label_type,
    read_labels,
    read_support,
    support_tensors,
)
from ehrmeta.persistence import read_bundle, write_bundle

if TYPE_CHECKING:
    from ehrmeta.estimators.adapted import Adapted
    from ehrmeta.estimators.meta import MetaEstimator

__all__ = ["fits_together", "load_adapted", "load_file", "load_model", "save_adapted", "save_model"]

Path = str | os.PathLike[str]
Model = TypeVar("Model", bound="MetaEstimator")


def save_model(model: MetaEstimator, path: Path) -> None:
    """Write a fitted model to one file; see `MetaRegressor.save`."""
    metadata = {"kind": "model", "model": model_settings(model)}
    write_bundle(path, model_tensors(model), metadata)


def load_model(path: Path, expected: type[Model], *, device: str = "auto") -> Model:
    """Read a fitted model; see `MetaRegressor.load`."""
    from ehrmeta.estimators.adapted import Adapted

    found = load_file(path, device=device)
    if isinstance(found, Adapted):
        raise BundleError(
            f"{os.fspath(path)!r} holds adapted patients, not a model.",
            Remedy("pass-a-model", "Open it with Adapted.load, whose .model is the model."),
        )
    if not isinstance(found, expected):
        raise BundleError(
            f"{os.fspath(path)!r} holds a {type(found).__name__}.",
            Remedy("pass-a-model", f"Open it with {type(found).__name__}.load."),
        )
    return found


def save_adapted(adapted: Adapted, path: Path) -> None:
    """Write adapted tasks to one file; see `Adapted.save`."""
    if adapted.transform is not None:
        raise BundleError(
            "tasks adapted behind a pipeline cannot be saved: a file cannot hold its transformers. "
            "Save the model, transform the rows yourself, and adapt again after loading."
        )
    labels = adapted.labels_
    metadata = {
        "kind": "adapted",
        "contains_patient_data": True,
        "model": model_settings(adapted.model),
        "labels": None if labels is None else label_type(labels),
    }
    tensors = model_tensors(adapted.model) | support_tensors(adapted._support)
    if labels is not None:
        tensors["labels"] = label_bytes(labels)
    write_bundle(path, tensors, metadata)


def load_adapted(path: Path, *, device: str = "auto") -> Adapted:
    """Read adapted tasks; see `Adapted.load`."""
    from ehrmeta.estimators.adapted import Adapted

    found = load_file(path, device=device)
    if not isinstance(found, Adapted):
        raise BundleError(
            f"{os.fspath(path)!r} holds a model without patients: open it with MetaRegressor.load, "
            "then adapt it."
        )
    return found


def load_file(path: Path, *, device: str = "auto") -> MetaEstimator | Adapted:
    """Read a model or adapted tasks, whichever the file holds.

    Raises
    ------
    BundleError
        The file is missing, damaged, of another kind, or names a class that files may not hold.
    """
    from ehrmeta.estimators.adapted import Adapted

    tensors, metadata = read_bundle(path)
    with fits_together(path):
        kind = metadata["kind"]
        if kind == "calibrated":
            raise BundleError(
                "it holds a calibrated model.",
                Remedy("pass-a-model", f"Open it with {metadata['class']}.load."),
            )
        if kind not in ("model", "adapted"):
            raise BundleError(f"it holds {kind!r}, which this version of ehrmeta does not know.")
        model = restored_model(metadata["model"], tensors, device)
        if kind == "model":
            return model
        support = read_support(tensors, model._no_rows(1))
        labels = None
        if metadata["labels"] is not None:
            labels = read_labels(tensors["labels"], metadata["labels"], support.n_tasks)
    return Adapted(model, labels, support)


@contextmanager
def fits_together(path: Path) -> Iterator[None]:
    """Name the file in every error about settings that do not fit together."""
    remedy = "Save the model again with a current version of ehrmeta."
    try:
        yield
    except BundleError as error:
        raise BundleError(f"cannot use {os.fspath(path)!r}:", *error.args, remedy) from error
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BundleError(
            f"cannot use {os.fspath(path)!r}: its settings do not fit together. {remedy}"
        ) from error
