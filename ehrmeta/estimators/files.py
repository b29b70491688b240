"""Saved models and saved patients: what of them goes into a file, and how it comes back.

A ``model`` file holds learned weights, the settings and declared summary statistics (scales,
levels held by ten or more tasks), never a task label. An ``adapted`` file holds, beside a model,
the encoded support and the labels of its tasks: patient data, and marked so.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ehrmeta import algorithms
from ehrmeta.algorithms import Algorithm
from ehrmeta.data import Schema
from ehrmeta.errors import BundleError
from ehrmeta.estimators.table_encoder import TableEncoder
from ehrmeta.nn import MLP
from ehrmeta.nn.backbone import Backbone
from ehrmeta.nn.task_rows import TaskRows
from ehrmeta.persistence import read_bundle, write_bundle
from ehrmeta.persistence.sklearn_models import (
    SAVED_MODELS,
    is_saved,
    read_model,
    written_model,
)

if TYPE_CHECKING:
    from ehrmeta.estimators.adapted import Adapted
    from ehrmeta.estimators.meta import MetaEstimator

__all__ = ["load_adapted", "load_file", "load_model", "save_adapted", "save_model"]

Path = str | os.PathLike[str]
Json = dict[str, Any]
Model = TypeVar("Model", bound="MetaEstimator")

# All that a file may name: this package's own algorithms, the backbone without user code, and
# population models that are written as arrays.
_PARTS = {
    name: part
    for name, part in vars(algorithms).items()
    if isinstance(part, type) and issubclass(part, Algorithm) and not inspect.isabstract(part)
} | {"MLP": MLP, **SAVED_MODELS}
_SUPPORT = ("x", "measured", "time", "y", "origin", "starts")
_DATES = "datetime64[ns]"  # the one type of labels that JSON does not hold


def save_model(model: MetaEstimator, path: Path) -> None:
    """Write a fitted model to one file; see `MetaRegressor.save`."""
    metadata = {"kind": "model", "model": _describe(model)}
    write_bundle(path, _params(model), metadata)


def load_model(path: Path, expected: type[Model], *, device: str = "auto") -> Model:
    """Read a fitted model; see `MetaRegressor.load`."""
    from ehrmeta.estimators.adapted import Adapted

    found = load_file(path, device=device)
    if isinstance(found, Adapted):
        raise BundleError(
            f"{os.fspath(path)!r} holds adapted patients, not a model: open it with Adapted.load, "
            "whose .model is the model."
        )
    if not isinstance(found, expected):
        raise BundleError(
            f"{os.fspath(path)!r} holds a {type(found).__name__}: open it with "
            f"{type(found).__name__}.load."
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
        "model": _describe(adapted.model),
        "labels": None if labels is None else _label_type(labels),
    }
    tensors = _params(adapted.model) | _support_tensors(adapted._support)
    if labels is not None:
        tensors["labels"] = _label_bytes(labels)
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
    with _fits_together(path):
        kind = metadata["kind"]
        if kind not in ("model", "adapted"):
            raise BundleError(f"it holds {kind!r}, which this version of ehrmeta does not know.")
        model = _restore(metadata["model"], tensors, device)
        if kind == "model":
            return model
        support = _support(tensors, model)
        labels = None
        if metadata["labels"] is not None:
            labels = _labels(tensors["labels"], metadata["labels"], support.n_tasks)
    return Adapted(model, labels, support)


def _estimators() -> dict[str, type[MetaEstimator]]:
    """All estimators that a file may hold."""
    from ehrmeta.estimators.classifier import MetaClassifier
    from ehrmeta.estimators.regressor import MetaRegressor

    return {"MetaClassifier": MetaClassifier, "MetaRegressor": MetaRegressor}


def _params(model: MetaEstimator) -> dict[str, Tensor]:
    params = {f"params.{name}": value for name, value in model.learner_.params.items()}
    if model.population_ is None:
        return params
    _, arrays = written_model(model.population_, _n_population(model))
    return params | {f"population.{name}": value for name, value in arrays.items()}


def _n_population(model: MetaEstimator) -> int:
    """Features of the population model, which gets a constant where there is none."""
    return model._no_rows(1).x.shape[1] or 1


def _describe(model: Any) -> Json:
    """Everything but the weights, as JSON."""
    name = type(model).__name__
    if _estimators().get(name) is not type(model):
        raise BundleError(
            f"{name} cannot be saved: a file holds a MetaRegressor or a MetaClassifier. Keep the "
            "training script and fit it again."
        )
    model._check_is_fitted()
    settings = model.get_params(deep=False)
    population = settings.get("population")
    if population is not None and not is_saved(population):
        raise BundleError(
            f"a model with population={type(population).__name__} cannot be saved: a file holds no "
            f"code, and of scikit-learn's models {', '.join(SAVED_MODELS)}. Take one of these, or "
            "keep the training script and fit again where it is needed."
        )
    del settings["callbacks"]  # functions are no data
    if not isinstance(settings["random_state"], int | np.integer):
        settings["random_state"] = None  # a generator has moved on since fit
    learner = model.learner_
    settings["precision"] = str(learner.dtype).removeprefix("torch.")
    backbone = _to_json(MLP() if model.backbone is None else model.backbone, "backbone")
    now = model._spec(learner.spec.n_features, model.table_)
    if vars(now.network) != vars(learner.spec.network) or (
        type(now.likelihood) is not type(learner.spec.likelihood)
    ):
        raise BundleError(
            "backbone or likelihood was changed since fit, so the weights belong to another "
            "network. Fit again, or set them back."
        )
    names = getattr(model, "feature_names_in_", None)
    return {
        "class": name,
        "settings": {name: _to_json(value, name) for name, value in settings.items()},
        "algorithm": _to_json(learner.algorithm, "algorithm"),
        "backbone": backbone,
        "population": None
        if model.population_ is None
        else written_model(model.population_, _n_population(model))[0],
        "n_visible": learner.spec.n_features,
        "table": model.table_.to_dict(),
        "schema": None if model.schema_ is None else model.schema_.to_dict(),
        "n_tasks": model.n_tasks_,
        "n_features_in": model.n_features_in_,
        "feature_names_in": None if names is None else [str(name) for name in names],
        "history": [
            {name: None if math.isnan(value) else value for name, value in record.items()}
            for record in model.history_
        ],
        "provenance": _provenance(settings["random_state"]),
    }


def _restore(state: Json, tensors: Mapping[str, Tensor], device: str) -> MetaEstimator:
    """The inverse of `_describe`."""
    estimators = _estimators()
    if state["class"] not in estimators:
        raise BundleError(f"it names the class {state['class']!r}, which no model file may hold.")
    settings = {name: _from_json(value) for name, value in state["settings"].items()}
    algorithm, backbone = _from_json(state["algorithm"]), _from_json(state["backbone"])
    if not (isinstance(algorithm, Algorithm) and isinstance(backbone, Backbone)):
        raise BundleError("its algorithm or backbone is none.")
    model = estimators[state["class"]](**settings | {"device": device, "backbone": backbone})
    model.table_ = TableEncoder.from_dict(state["table"])
    spec = model._spec(state["n_visible"], model.table_)
    model.backbone = settings["backbone"]
    dtype = getattr(torch, model.precision)
    with torch.device("meta"):  # shapes alone: a forged width must not take memory
        expected = algorithm.init(spec, torch.Generator().manual_seed(0))
    params = {
        name: _taken(tensors, f"params.{name}", like.to(dtype)) for name, like in expected.items()
    }
    n_saved = sum(name.startswith("params.") for name in tensors)
    if n_saved != len(params):
        raise BundleError(f"it has {n_saved} weight tensors; its settings ask for {len(params)}.")
    model.learner_ = model._make_learner(algorithm, spec, params, model.table_.time_unit)
    model.population_ = None
    if state.get("population") is not None:
        prefix = "population."
        arrays = {
            name.removeprefix(prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
        model.population_ = read_model(state["population"], arrays, _n_population(model))
    model.schema_ = None if state["schema"] is None else Schema.from_dict(state["schema"])
    model.n_tasks_ = state["n_tasks"]
    model.n_features_in_ = state["n_features_in"]
    if state["feature_names_in"] is not None:
        model.feature_names_in_ = np.asarray(state["feature_names_in"], dtype=object)
    model.history_ = [
        {name: math.nan if value is None else value for name, value in record.items()}
        for record in state["history"]
    ]
    model.provenance_ = state["provenance"]
    return model


def _taken(tensors: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
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


def _support_tensors(support: TaskRows) -> dict[str, Tensor]:
    """The encoded support; a file holds finite numbers only, so missing values are a mask."""
    tensors = {f"support.{name}": getattr(support, name) for name in _SUPPORT}
    missing = support.measured.isnan()
    tensors["support.measured"] = support.measured.masked_fill(missing, 0.0)
    if support.offset.any():  # drawn by their outcome
        tensors["support.offset"] = support.offset
    return tensors | {"support.missing": missing}


def _support(tensors: Mapping[str, Tensor], model: MetaEstimator) -> TaskRows:
    """The inverse of `_support_tensors`, checked to be rows that this model could have made."""
    n_rows, none = len(tensors["support.y"]), model._no_rows(1)
    like = {name: getattr(none, name) for name in _SUPPORT[:-1]}
    like["missing"] = none.measured.isnan()
    if "support.offset" in tensors:
        like["offset"] = none.offset
    columns = {
        name: _taken(tensors, f"support.{name}", empty.new_empty(n_rows, *empty.shape[1:]))
        for name, empty in like.items()
    }
    starts = tensors["support.starts"]
    divides = starts.dtype == torch.int64 and starts.ndim == 1 and len(starts) > 1
    if not (divides and starts[0] == 0 and starts[-1] == n_rows and (starts.diff() >= 0).all()):
        raise BundleError("its support rows do not divide into tasks.")
    columns["measured"] = columns["measured"].masked_fill(columns.pop("missing"), math.nan)
    return TaskRows(**columns, starts=starts, timed=model.table_.timed)


def _to_json(value: Any, name: str) -> Any:
    """A setting as JSON; tuples and parts are tagged, so that they come back as they were."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        items = [_to_json(item, name) for item in value]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, Schema):
        return {"schema": value.to_dict()}
    if _PARTS.get(type(value).__name__) is type(value):
        params = value.get_params(deep=False)
        return {
            "class": type(value).__name__,
            "params": {key: _to_json(item, f"{name}.{key}") for key, item in params.items()},
        }
    raise BundleError(
        f"{name}={type(value).__name__} cannot be saved: a file holds no code, so nothing but "
        "numbers, text, tuples and the package's own algorithms and networks. Keep the training "
        "script and fit again where it is needed."
    )


def _from_json(value: Any) -> Any:
    """The inverse of `_to_json`."""
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(_from_json(item) for item in value["tuple"])
    if "schema" in value:
        return Schema.from_dict(value["schema"])
    if value["class"] not in _PARTS:
        raise BundleError(f"it names the class {value['class']!r}, which no model file may hold.")
    return _PARTS[value["class"]](
        **{name: _from_json(item) for name, item in value["params"].items()}
    )


def _label_type(labels: npt.NDArray[Any]) -> str:
    return "object" if labels.dtype.kind in "OU" else str(labels.dtype)


def _label_bytes(labels: npt.NDArray[Any]) -> Tensor:
    """Labels as the bytes of a JSON list."""
    plain = labels.view(np.int64) if labels.dtype.kind == "M" else labels
    text = json.dumps(plain.tolist()).encode()
    return torch.from_numpy(np.frombuffer(text, np.uint8).copy())


def _labels(text: Tensor, dtype: str, n_tasks: int) -> npt.NDArray[Any]:
    """The inverse of `_label_bytes`."""
    plain = json.loads(text.numpy().tobytes())
    is_date = dtype == _DATES
    if not (is_date or dtype == "object" or np.dtype(dtype).kind in "biuf"):
        raise BundleError(f"its task labels are {dtype!r}, which no file may hold.")
    if not all(isinstance(label, str | int | float) for label in plain):
        raise BundleError("its task labels are neither text nor numbers.")
    if len(set(plain)) != len(plain) or len(plain) != n_tasks:
        raise BundleError(f"it has {len(plain)} task labels for {n_tasks} tasks.")
    return np.asarray(plain, np.int64).view(_DATES) if is_date else np.asarray(plain, dtype)


def _provenance(random_state: int | None) -> Json:
    try:
        own = version("ehrmeta")
    except PackageNotFoundError:
        own = "not installed"
    return {
        "ehrmeta": own,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "saved": datetime.now(UTC).isoformat(timespec="seconds"),
        "random_state": None if random_state is None else int(random_state),
    }


@contextmanager
def _fits_together(path: Path) -> Iterator[None]:
    """Name the file in every error about settings that do not fit together."""
    remedy = "Save the model again with a current version of ehrmeta."
    try:
        yield
    except BundleError as error:
        raise BundleError(f"cannot use {os.fspath(path)!r}: {error} {remedy}") from error
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BundleError(
            f"cannot use {os.fspath(path)!r}: its settings do not fit together. {remedy}"
        ) from error
