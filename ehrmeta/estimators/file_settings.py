"""Settings as JSON: numbers, text, and the few classes that a file may name."""

from __future__ import annotations

from typing import Any

import numpy as np

from ehrmeta.algorithms import ALGORITHMS
from ehrmeta.data import Schema
from ehrmeta.errors import BundleError
from ehrmeta.nn import MLP
from ehrmeta.persistence.sklearn_models import SAVED_MODELS

__all__ = ["from_json", "to_json"]

# All that a file may name: this package's own algorithms, the backbone without user code, and
# population models that are written as arrays.
_PARTS = {
    **{algorithm.__name__: algorithm for algorithm in ALGORITHMS.values()},
    "MLP": MLP,
    **SAVED_MODELS,
}


def to_json(value: Any, name: str) -> Any:
    """A setting as JSON; tuples and parts are tagged, so that they come back as they were."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
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
