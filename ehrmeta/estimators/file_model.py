"""A fitted model as JSON and tensors, and back: what a model file holds."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ehrmeta.algorithms import Algorithm
from ehrmeta.data import Schema
from ehrmeta.errors import BundleError
from ehrmeta.estimators.file_settings import from_json, to_json
from ehrmeta.estimators.file_support import tensor_like
from ehrmeta.estimators.inputs import check_parameters
from ehrmeta.estimators.table_encoder import TableEncoder
from ehrmeta.nn import MLP
from ehrmeta.nn.backbone import Backbone
from ehrmeta.persistence.sklearn_models import WHAT_IS_SAVED, is_saved, read_model, written_model

if TYPE_CHECKING:
    from ehrmeta.estimators.meta import MetaEstimator

__all__ = ["model_settings", "model_tensors", "restored_model"]

Json = dict[str, Any]

_OF_A_CODING = ("center", "scale")
_MOST_STEPS = 10_000  # of adapting: a forged number must not keep a reader busy for ever


def model_tensors(model: MetaEstimator) -> dict[str, Tensor]:
    """Its weights, and the arrays of its population model."""
    params = {f"params.{name}": value for name, value in model.learner_.params.items()}
    if model.population_ is None:
        return params
    _, arrays = written_model(model.population_, _n_population(model))
    return params | {f"population.{name}": value for name, value in arrays.items()}


def _n_population(model: MetaEstimator) -> int:
    """Features of the population model, which gets a constant where there is none."""
    return model._no_rows(1).x.shape[1] or 1


def model_settings(model: Any) -> Json:
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
            f"code, and of scikit-learn's models {WHAT_IS_SAVED}. Take one of these, or keep the "
            "training script and fit again where it is needed."
        )
    del settings["callbacks"]  # functions are no data
    if not isinstance(settings["random_state"], int | np.integer):
        settings["random_state"] = None  # a generator has moved on since fit
    learner = model.learner_
    _check_work(learner.algorithm)
    settings["precision"] = str(learner.dtype).removeprefix("torch.")
    backbone = to_json(MLP() if model.backbone is None else model.backbone, "backbone")
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
        "settings": {name: to_json(value, name) for name, value in settings.items()},
        "algorithm": to_json(learner.algorithm, "algorithm"),
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
        "provenance": _provenance(settings["random_state"], model.data_digest_),
    }


def restored_model(state: Json, tensors: Mapping[str, Tensor], device: str) -> MetaEstimator:
    """The inverse of `model_settings`."""
    estimators = _estimators()
    if state["class"] not in estimators:
        raise BundleError(f"it names the class {state['class']!r}, which no model file may hold.")
    settings = {name: from_json(value) for name, value in state["settings"].items()}
    algorithm, backbone = from_json(state["algorithm"]), from_json(state["backbone"])
    if not (isinstance(algorithm, Algorithm) and isinstance(backbone, Backbone)):
        raise BundleError("its algorithm or backbone is none.")
    n_saved = sum(name.startswith("params.") for name in tensors)
    if isinstance(backbone, MLP) and len(backbone.hidden) > n_saved:
        raise BundleError(f"it has {n_saved} weight tensors; its settings ask for more.")
    _check_work(algorithm)
    parts = {"algorithm": algorithm, "backbone": backbone}
    model = estimators[state["class"]](**settings | parts | {"device": device})
    check_parameters(model)
    model.table_ = TableEncoder.from_dict(state["table"])
    spec = model._spec(state["n_visible"], model.table_)
    model.set_params(**{name: settings[name] for name in parts})
    _check_numbers(state)
    dtype = getattr(torch, model.precision)
    with torch.device("meta"):  # shapes alone: a forged width must not take memory
        expected = algorithm.init(spec, torch.Generator().manual_seed(0))
    params = {
        name: tensor_like(tensors, f"params.{name}", like.to(dtype))
        for name, like in expected.items()
    }
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
    model.data_digest_ = model.provenance_.get("data_sha256")
    return model


def _check_numbers(state: Json) -> None:
    """Refuse text where a number is used later, and scales that are not positive."""
    table, outcome = state["table"], state["table"]["outcome"]
    scales = [table["time_unit"], table["time_scale"], outcome.get("scale", 1.0)]
    others = [state["n_tasks"], table["time_center"], outcome.get("center", 0.0)]
    others += [coding[name] for coding in table["encoder"]["codings"] for name in _OF_A_CODING]
    others += [value for record in state["history"] for value in record.values() if value]
    if not all(isinstance(value, int | float) for value in scales + others) or min(scales) <= 0:
        raise BundleError("its scales are not all positive numbers.")
    made = state["provenance"]
    if not (isinstance(made["saved"], str) and isinstance(made["ehrmeta"], str)):
        raise BundleError("it does not say when and by what it was made.")


def _check_work(algorithm: Algorithm) -> None:
    """Refuse what no one could wait for; a file with such settings is never read either."""
    for name, value in algorithm.get_params().items():
        if isinstance(value, int | np.integer) and value > _MOST_STEPS:
            raise BundleError(f"{name}={value} is more than a file may ask for ({_MOST_STEPS:,}).")


def _estimators() -> dict[str, type[MetaEstimator]]:
    """All estimators that a file may hold."""
    from ehrmeta.estimators.classifier import MetaClassifier
    from ehrmeta.estimators.regressor import MetaRegressor

    return {"MetaClassifier": MetaClassifier, "MetaRegressor": MetaRegressor}


def _provenance(random_state: int | None, data_digest: str | None) -> Json:
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
        "data_sha256": data_digest,
    }
