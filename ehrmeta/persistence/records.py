"""Serialisation of fitted dataclasses as named tensors and JSON, without code.

A value may consist of numbers, text, tuples, arrays, some scikit-learn models (saved as arrays),
and objects of listed classes: dataclasses by field, others by ``to_dict`` or ``to_state``. An
object that occurs twice is written once. On reading, fields are checked against the annotations of
the dataclass.
"""

import types
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from functools import lru_cache
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor

from ehrmeta.errors import BundleError
from ehrmeta.persistence.sklearn_models import WHAT_IS_SAVED, is_saved, read_model, written_model

Classes: TypeAlias = Mapping[str, type]
_MIN_SAMPLES_LEAF = 10  # of trees: values of smaller leaves could reveal single rows


def written_state(value: Any, classes: Classes) -> tuple[dict[str, Tensor], Any]:
    """Tensors and JSON of a value.

    Raises
    ------
    BundleError
        A part is neither of a listed class nor a supported model.

    Examples
    --------
    >>> tensors, plain = written_state(("dose", np.ones(2)), {})
    >>> tensors, plain
    ({'.1': tensor([1., 1.], dtype=torch.float64)}, {'tuple': ['dose', {'array': '.1'}]})
    >>> read_state(tensors, plain, {})
    ('dose', array([1., 1.]))
    """
    tensors: dict[str, Tensor] = {}
    names: dict[int, str] = {}  # by id, of the objects written so far

    def written(value: Any, name: str) -> Any:
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, float) and not np.isfinite(value):
            return {"number": str(value)}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, tuple | list):
            return {"tuple": [written(item, f"{name}.{at}") for at, item in enumerate(value)]}
        if isinstance(value, np.ndarray):
            return written_array(value, name)
        if id(value) in names:
            return {"same": names[id(value)]}
        names[id(value)] = name
        return {"name": name, **written_object(value, name)}

    def written_array(array: np.ndarray[Any, Any], name: str) -> Any:
        if array.dtype.kind in "biuf":
            tensors[name] = torch.as_tensor(np.array(array))
            return {"array": name}
        if not all(isinstance(text, str) for text in array):
            raise BundleError(
                "labels that are neither text nor numbers cannot be saved. Convert them to text."
            )
        return {"texts": array.tolist()}

    def written_object(value: Any, name: str) -> dict[str, Any]:
        kind: type = type(value)
        if classes.get(kind.__name__) is not kind:
            plain, arrays = _written_model(value)
        elif hasattr(value, "to_state"):
            arrays, state = value.to_state()
            plain = {"class": kind.__name__, "state": state}
        elif hasattr(value, "to_dict"):
            return {"class": kind.__name__, "values": value.to_dict()}
        else:
            parts = {part: written(getattr(value, part), f"{name}.{part}") for part in _hints(kind)}
            return {"class": kind.__name__, "fields": parts}
        tensors.update({f"{name}/{key}": tensor for key, tensor in arrays.items()})
        return plain

    plain = written(value, "")
    return tensors, plain


def _written_model(model: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not is_saved(model):
        raise BundleError(
            f"a model that contains a {type(model).__name__} cannot be saved: a file holds no "
            f"code. The scikit-learn models that can be saved are {WHAT_IS_SAVED}. Use one of "
            "these, or keep the training script and fit again where the model is needed."
        )
    smallest = getattr(model, "min_samples_leaf", _MIN_SAMPLES_LEAF)
    if smallest < _MIN_SAMPLES_LEAF:
        raise BundleError(
            f"a {type(model).__name__} with min_samples_leaf={smallest} cannot be saved: its "
            f"leaves could reveal single patients. Set {_MIN_SAMPLES_LEAF} or more, and fit again."
        )
    kind, arrays = written_model(model, model.n_features_in_)
    return {"model": kind, "n_features": model.n_features_in_}, arrays


def read_state(
    tensors: Mapping[str, Tensor], plain: Any, classes: Classes, device: str = "auto"
) -> Any:
    """The inverse of `written_state`; torch models are put on the device.

    Raises
    ------
    BundleError
        The JSON names a class that is not listed, or a dataclass has wrong fields.
    """
    objects: dict[str, Any] = {}
    arrays: dict[str, dict[str, Tensor]] = defaultdict(dict)  # by object
    for key, tensor in tensors.items():
        name, _, inner = key.partition("/")
        arrays[name][inner] = tensor

    readers: dict[str, Callable[[Any], Any]] = {
        "number": float,
        "tuple": lambda items: tuple(read(item) for item in items),
        "texts": lambda texts: np.array(texts, dtype=object),
        "array": lambda name: tensors[name].numpy(),
        "same": objects.__getitem__,
    }

    def read(plain: Any) -> Any:
        if not isinstance(plain, dict):
            return plain
        if len(plain) == 1:
            ((kind, value),) = plain.items()
            return readers[kind](value)
        objects[plain["name"]] = read_object(plain)
        return objects[plain["name"]]

    def read_object(plain: Any) -> Any:
        if "model" in plain:
            return read_model(plain["model"], arrays[plain["name"]], plain["n_features"])
        if plain["class"] not in classes:
            raise BundleError(
                f"it names the class {plain['class']!r}, which this kind of file must not contain."
            )
        made: Any = classes[plain["class"]]
        if "state" in plain:
            return made.from_state(arrays[plain["name"]], plain["state"], device)
        if "values" in plain:
            return made.from_dict(plain["values"])
        parts = {key: read(part) for key, part in plain["fields"].items()}
        hints, required = _hints(made), {f.name for f in fields(made) if f.default is MISSING}
        is_complete = required <= parts.keys() <= hints.keys()  # older files have fewer fields
        if not is_complete or not all(_fits(parts[key], hints[key]) for key in parts):
            raise BundleError(f"its {plain['class']} has wrong fields.")
        return made(**parts)

    return read(plain)


_hints = lru_cache(get_type_hints)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value has the annotated type."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in args)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, args[0]) for item in value)
    if origin is np.ndarray:
        scalar = (*get_args(args[1]), Any)[0]
        return isinstance(value, np.ndarray) and (scalar is Any or value.dtype == scalar)
    if hint in (int, float):
        return type(value) in (int, hint)
    return hint is Any or (value in args if origin is Literal else isinstance(value, hint))
