"""Saving to files: base class of saved objects, and JSON encoding of settings and labels.

A ``model`` file holds learned weights, settings and summary statistics (scales, levels that eleven
or more patients have), never a task label. An ``adapted`` file also holds the encoded support and
the task labels: it is patient data and marked so.
"""

import hashlib
import json
import math
import os
import platform
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ehrmeta.algorithms import ALGORITHMS
from ehrmeta.data import Encoder, Schema
from ehrmeta.errors import BundleError, DataError, DataWarning, Remedy, RenamedWarning, warn
from ehrmeta.nn import MLP, TaskRows
from ehrmeta.persistence import read_bundle, write_bundle
from ehrmeta.persistence.sklearn_models import SAVED_MODELS

Json: TypeAlias = dict[str, Any]
State: TypeAlias = tuple[dict[str, Tensor], Json]  # contents of a file: tensors and metadata

# The only classes that a file may name: algorithms of this package, the backbone without user
# code, and population models that are saved as arrays.
_PARTS = {
    **{algorithm.__name__: algorithm for algorithm in ALGORITHMS.values()},
    "MLP": MLP,
    **SAVED_MODELS,
}
_SUPPORT = ("x", "measured", "time", "y", "origin", "starts")
_DATES = "datetime64[ns]"  # the only type of labels that JSON does not have
_OPEN = "Open it with {class}.load."
_OTHER_KINDS = {  # content of each kind of file, and how to load it
    "model": ("a model without patients", "Open it with MetaRegressor.load, then adapt it."),
    "adapted": ("adapted patients, not a model", "Open it with Adapted.load; .model is the model."),
    "calibrated": ("a calibrated model", _OPEN),
    "calibrated adapted": ("patients adapted from a calibrated model", _OPEN),
    "effects": ("a model of treatment response", _OPEN),
    "adapted effects": ("patients adapted from a model of treatment response", _OPEN),
}


class Saved(ABC):
    """Base of objects that can be saved to one file, as tensors and metadata."""

    file_kind: ClassVar[str]

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        rare_levels: Literal["drop", "keep"] = "drop",
        mode: int | None = None,
    ) -> None:
        """Save to one file; `to_state` lists what it contains.

        The file is written as a whole or not at all; an error leaves an existing file unchanged.

        Parameters
        ----------
        path : str or path-like
            By convention ``"name.ehrmeta"``.
        rare_levels : {"drop", "keep"}
            Levels of categorical features that fewer than eleven patients have could identify them.
            By default the file does not name them, with a warning: a loaded model predicts their
            rows as of an unknown level. "keep" names all, and marks the file as patient data.
        mode : int, optional
            Permissions of the file, such as ``0o640``. By default only the owner may read a file
            of patient data; other files keep those of the file they replace.

        Warns
        -----
        DataWarning
            Levels were left out, with counts by column.

        Raises
        ------
        BundleError
            Some part cannot be saved (a `TorchModule`, a class of your own), or the file cannot be
            written.
        """
        if rare_levels not in ("drop", "keep"):
            raise DataError(f"rare_levels must be 'drop' or 'keep', got {rare_levels!r}.")
        tensors, metadata = self.to_state()
        if rare_levels == "keep":
            metadata |= {"contains_patient_data": True, "names_rare_levels": True}
        left_out: Counter[str] = Counter()
        if rare_levels == "drop":
            metadata = _without_rare_levels(metadata, left_out)
        if mode is None and metadata.get("contains_patient_data"):
            mode = 0o600
        write_bundle(path, tensors, metadata, mode=mode)
        if left_out:
            counts = ", ".join(f"'{name}': {n:,}" for name, n in left_out.items())
            remedy = "Pass rare_levels='keep' to name them, in a file that is then patient data."
            message = (
                f"levels of fewer than eleven patients are not named in the file ({counts}). Once "
                "loaded, the model predicts their rows as the average level."
            )
            warn(DataWarning(message, Remedy("keep-levels", remedy)))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str = "auto") -> Self:
        """Load what `save` wrote; predictions are bit-identical on the same device.

        Parameters
        ----------
        path : str or path-like
        device : str
            Where to compute, regardless of where the model was trained.

        Raises
        ------
        BundleError
            The file is missing, damaged, or of another kind.
        """
        tensors, metadata = read_bundle(path)
        kind = metadata.get("kind")
        if kind != cls.file_kind and kind in _OTHER_KINDS:
            content, advice = _OTHER_KINDS[kind]
            remedy = Remedy("pass-a-model", advice.format_map(metadata))
            raise BundleError(f"{os.fspath(path)!r} holds {content}.", remedy)
        with fits_together(path):
            if kind != cls.file_kind:
                raise BundleError(f"its kind {kind!r} is unknown to this version of ehrmeta.")
            return cls.from_state(tensors, metadata, device)

    @abstractmethod
    def to_state(self) -> State:
        """Tensors and JSON-safe metadata of a file; a `BundleError` if a part cannot be saved."""

    @classmethod
    @abstractmethod
    def from_state(
        cls, tensors: Mapping[str, Tensor], metadata: Json, device: str = "auto"
    ) -> Self:
        """The inverse of `to_state`; a `BundleError` if the parts are inconsistent."""


def _without_rare_levels(plain: Any, left_out: Counter[str]) -> Any:
    """Metadata without names of rare levels; `left_out` counts them by feature."""
    if isinstance(plain, list):
        return [_without_rare_levels(item, left_out) for item in plain]
    if not isinstance(plain, dict):
        return plain
    if plain.keys() == {"features", "codings"}:
        encoder, counts = Encoder.from_dict(plain).without_rare_levels()
        left_out.update(counts)
        return encoder.to_dict()
    return {name: _without_rare_levels(item, left_out) for name, item in plain.items()}


def check_class(name: str, expected: type) -> None:
    """Raise a `BundleError` if a file holds an object of another class."""
    if name != expected.__name__:
        remedy = Remedy("pass-a-model", _OPEN.format_map({"class": name}))
        raise BundleError(f"it holds a {name}.", remedy)


@contextmanager
def fits_together(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name the file in every error about inconsistent contents."""
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
    """A setting as JSON; tuples, schemas and components are tagged for `from_json`."""
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
        f"{name}={type(value).__name__} cannot be saved: a file holds no code, only numbers, "
        "text, tuples and algorithms and networks of ehrmeta. Keep the training script and fit "
        "again where it is needed."
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
        raise BundleError(f"its class {value['class']!r} is not allowed in model files.")
    params = {name: from_json(item) for name, item in value["params"].items()}
    with warnings.catch_warnings():  # files of earlier versions hold old names of parameters
        warnings.simplefilter("ignore", RenamedWarning)
        return _PARTS[value["class"]](**params)


def support_tensors(support: TaskRows) -> dict[str, Tensor]:
    """Tensors of an encoded support; a file holds finite numbers only, so NaN becomes a mask."""
    tensors = {f"support.{name}": getattr(support, name) for name in _SUPPORT}
    missing = support.measured.isnan()
    tensors["support.measured"] = support.measured.masked_fill(missing, 0.0)
    if support.offset.any():  # of case-control supports
        tensors["support.offset"] = support.offset
    return tensors | {"support.missing": missing}


def read_support(tensors: Mapping[str, Tensor], empty: TaskRows) -> TaskRows:
    """The inverse of `support_tensors`; checks shapes and types against an `empty` support."""
    n_rows = len(tensors["support.y"])
    like = {name: getattr(empty, name) for name in _SUPPORT[:-1]}
    like["missing"] = empty.measured.isnan()
    if "support.offset" in tensors:
        like["offset"] = empty.offset
    columns = {
        name: tensor_like(tensors, f"support.{name}", column.new_empty(n_rows, *column.shape[1:]))
        for name, column in like.items()
    }
    starts = tensors["support.starts"]
    is_index = starts.dtype == torch.int64 and starts.ndim == 1 and len(starts) > 1
    if not (is_index and starts[0] == 0 and starts[-1] == n_rows and (starts.diff() >= 0).all()):
        raise BundleError("its support rows are not divided into tasks.")
    columns["measured"] = columns["measured"].masked_fill(columns.pop("missing"), math.nan)
    return TaskRows(**columns, starts=starts, timed=empty.timed)


def tensor_like(tensors: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    """A tensor of the file, checked against the shape and type that its settings imply."""
    if name not in tensors:
        raise BundleError(f"tensor {name!r} is missing.")
    value = tensors[name]
    if value.shape != like.shape or value.dtype != like.dtype:
        raise BundleError(
            f"tensor {name!r} is {tuple(value.shape)} {value.dtype}; its settings imply "
            f"{tuple(like.shape)} {like.dtype}."
        )
    return value


def label_type(labels: npt.NDArray[Any]) -> str:
    """Name of the labels' type in a file."""
    return "object" if labels.dtype.kind in "OU" else str(labels.dtype)


def label_bytes(labels: npt.NDArray[Any]) -> Tensor:
    """Labels as the bytes of a JSON list, for one tensor."""
    plain = labels.view(np.int64) if labels.dtype.kind == "M" else labels
    text = json.dumps(plain.tolist()).encode()
    return torch.from_numpy(np.frombuffer(text, np.uint8).copy())


def read_label_bytes(text: Tensor, dtype: str, n_tasks: int) -> npt.NDArray[Any]:
    """The inverse of `label_bytes`."""
    plain = json.loads(text.numpy().tobytes())
    is_date = dtype == _DATES
    if not (is_date or dtype == "object" or np.dtype(dtype).kind in "biuf"):
        raise BundleError(f"its task labels are {dtype!r}, which a file cannot hold.")
    if not all(isinstance(label, str | int | float) for label in plain):
        raise BundleError("its task labels must be text or numbers.")
    if len(set(plain)) != len(plain) or len(plain) != n_tasks:
        raise BundleError(f"it has {len(plain)} task labels for {n_tasks} tasks.")
    return np.asarray(plain, np.int64).view(_DATES) if is_date else np.asarray(plain, dtype)


def provenance(random_state: int | None, data_digest: str | None) -> Json:
    """Versions, date, seed and data digest to record in a file."""
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
        sha.update(tensors[name].detach().cpu().contiguous().numpy().data)
    return sha.hexdigest()


def data_digest(rows: TaskRows) -> str:
    """SHA-256 of a table's tasks, times and outcomes, whatever its features and order of rows."""
    columns = {"codes": rows.codes, "time": rows.time, "y": rows.y}
    ahead, later = columns["codes"].diff() > 0, columns["time"].diff() > 0
    if (ahead | later).all():  # rows of one task are in the order of time
        return digest(columns)
    order = torch.from_numpy(np.lexsort([columns[name].numpy() for name in ("y", "time", "codes")]))
    return digest({name: values[order] for name, values in columns.items()})
