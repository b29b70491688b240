"""Files of fitted and adapted things: what classes share that are written as tensors and JSON.

A ``model`` file holds learned weights, the settings and declared summary statistics (scales,
levels held by ten or more tasks), never a task label. An ``adapted`` file holds, beside a model,
the encoded support and the labels of its tasks: patient data, and marked so. Which class makes
what of a file, the class says itself, by ``to_state`` and ``from_state``.
"""

import hashlib
import json
import math
import os
import platform
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ehrmeta.algorithms import ALGORITHMS
from ehrmeta.data import Schema
from ehrmeta.errors import BundleError, Remedy
from ehrmeta.nn import MLP, TaskRows
from ehrmeta.persistence import read_bundle, write_bundle
from ehrmeta.persistence.sklearn_models import SAVED_MODELS

Json: TypeAlias = dict[str, Any]
State: TypeAlias = tuple[dict[str, Tensor], Json]  # what a file holds: tensors and metadata

# All that a file may name: this package's own algorithms, the backbone without user code, and
# population models that are written as arrays.
_PARTS = {
    **{algorithm.__name__: algorithm for algorithm in ALGORITHMS.values()},
    "MLP": MLP,
    **SAVED_MODELS,
}
_SUPPORT = ("x", "measured", "time", "y", "origin", "starts")
_DATES = "datetime64[ns]"  # the one type of labels that JSON does not hold
_OTHER_KINDS = {  # what a file holds instead, and what to do
    "model": ("a model without patients", "Open it with MetaRegressor.load, then adapt it."),
    "adapted": (
        "adapted patients, not a model",
        "Open it with Adapted.load, whose .model is the model.",
    ),
    "calibrated": ("a calibrated model", "Open it with {class}.load."),
    "calibrated adapted": (
        "patients adapted from a calibrated model",
        "Open it with {class}.load.",
    ),
    "effects": ("a model of treatment response", "Open it with {class}.load."),
    "adapted effects": (
        "patients adapted from a model of treatment response",
        "Open it with {class}.load.",
    ),
}


class Saved(ABC):
    """Something that is written to one file and read from it, by tensors and metadata."""

    file_kind: ClassVar[str]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to one file, whole or not at all; an older file survives errors.

        What the file holds, and what it does not, `to_state` says.

        Parameters
        ----------
        path : str or path-like
            By convention ``"name.ehrmeta"``.

        Raises
        ------
        BundleError
            Some part is one that a file cannot hold (a `TorchModule`, a class of your own), or the
            file cannot be written.
        """
        write_bundle(path, *self.to_state())

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str = "auto") -> Self:
        """Read what `save` wrote; it predicts bit for bit the same on the same device.

        Parameters
        ----------
        path : str or path-like
        device : str
            Where to compute, wherever the model was trained.

        Raises
        ------
        BundleError
            The file is missing, damaged, or holds something else.
        """
        tensors, metadata = read_bundle(path)
        kind = metadata.get("kind")
        if kind != cls.file_kind and kind in _OTHER_KINDS:
            content, words = _OTHER_KINDS[kind]
            remedy = Remedy("pass-a-model", words.format_map(metadata))
            raise BundleError(f"{os.fspath(path)!r} holds {content}.", remedy)
        with fits_together(path):
            if kind != cls.file_kind:
                raise BundleError(
                    f"it holds {kind!r}, which this version of ehrmeta does not know."
                )
            return cls.from_state(tensors, metadata, device)

    @abstractmethod
    def to_state(self) -> State:
        """Tensors and JSON-safe metadata of a file.

        Raises
        ------
        BundleError
            Some part is one that a file cannot hold.
        """

    @classmethod
    @abstractmethod
    def from_state(
        cls, tensors: Mapping[str, Tensor], metadata: Json, device: str = "auto"
    ) -> Self:
        """The inverse of `to_state`.

        Raises
        ------
        BundleError
            The parts do not fit together.
        """


@contextmanager
def fits_together(path: str | os.PathLike[str]) -> Iterator[None]:
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


def to_json(value: Any, name: str) -> Any:
    """A setting as JSON; tuples and parts are tagged, so that they come back as they were."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray):
        value = tuple(value.tolist())
    if isinstance(value, list | tuple):
        items = [to_json(item, name) for item in value]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, Schema):
        return {"schema": value.to_dict()}
    if _PARTS.get(type(value).__name__) is type(value):
        params = value.get_params(deep=False)
        return {
            "class": type(value).__name__,
            "params": {key: to_json(item, f"{name}.{key}") for key, item in params.items()},
        }
    raise BundleError(
        f"{name}={type(value).__name__} cannot be saved: a file holds no code, so nothing but "
        "numbers, text, tuples and the package's own algorithms and networks. Keep the training "
        "script and fit again where it is needed."
    )


def from_json(value: Any) -> Any:
    """The inverse of `to_json`."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(from_json(item) for item in value["tuple"])
    if "schema" in value:
        return Schema.from_dict(value["schema"])
    if value["class"] not in _PARTS:
        raise BundleError(f"it names the class {value['class']!r}, which no model file may hold.")
    return _PARTS[value["class"]](
        **{name: from_json(item) for name, item in value["params"].items()}
    )


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


def read_label_bytes(text: Tensor, dtype: str, n_tasks: int) -> npt.NDArray[Any]:
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


def provenance(random_state: int | None, data_digest: str | None) -> Json:
    """When and by which versions a file is made, from which seed and data."""
    try:
        ehrmeta = version("ehrmeta")
    except PackageNotFoundError:
        ehrmeta = "not installed"
    return {
        "ehrmeta": ehrmeta,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "saved": datetime.now(UTC).isoformat(timespec="seconds"),
        "random_state": None if random_state is None else int(random_state),
        "data_sha256": data_digest,
    }


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        sha.update(f"{name} {tuple(tensors[name].shape)}".encode())
        sha.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()
