"""Hyper-parameters checked at fit, with one error that names what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, is_classifier, is_regressor

from ehrmeta.algorithms import Algorithm
from ehrmeta.data import Schema
from ehrmeta.errors import DataError
from ehrmeta.nn.activations import ACTIVATIONS
from ehrmeta.nn.backbone import Backbone

__all__ = ["check_parameters"]


def check_parameters(estimator: BaseEstimator) -> None:
    """Refuse values that no fit can use.

    Raises
    ------
    DataError
        Names the parameter, what it must be, and what it was.
    """
    for name, value in estimator.get_params(deep=True).items():
        rule = _RULES.get(name.rpartition("__")[2])
        if rule is None or name.startswith("population__"):  # that model has rules of its own
            continue
        must_be, holds = rule
        if not holds(value):
            raise DataError(f"{name} must be {must_be}, got {value!r}.")
    algorithm = getattr(estimator, "algorithm", None)
    start, bound = (getattr(algorithm, name, None) for name in ("inner_lr", "max_inner_lr"))
    if bound is not None and start > bound:
        raise DataError(
            f"algorithm__inner_lr={start!r} lies above max_inner_lr={bound!r}, which it starts "
            "below. Lower it, or raise max_inner_lr."
        )
    population = getattr(estimator, "population", None)
    if population is not None:
        kind, is_kind = (
            ("classifier", is_classifier)
            if is_classifier(estimator)
            else ("regressor", is_regressor)
        )
        if not (isinstance(population, BaseEstimator) and is_kind(population)):
            raise DataError(
                f"population must be a scikit-learn {kind} such as HistGradientBoosting"
                f"{kind.capitalize()}(), got {population!r}."
            )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _are_whole(values: Any, smallest: int) -> bool:
    return isinstance(values, tuple | list) and all(
        _is_whole(value) and value >= smallest for value in values
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _count(smallest: int) -> tuple[str, Any]:
    return (
        f"a whole number, {smallest} or more",
        lambda value: _is_whole(value) and value >= smallest,
    )


def _positive(value: Any) -> bool:
    return _is_number(value) and bool(value > 0)


def _is_shots(value: Any) -> bool:
    return _are_whole(value, 0) and len(value) == 2 and value[0] <= value[1] and value[1] >= 1


_NOT_NEGATIVE: tuple[str, Any] = ("0 or more", lambda value: _is_number(value) and value >= 0)

_RULES: dict[str, tuple[str, Any]] = {
    "algorithm": (
        "an algorithm such as MetaSGD()",
        lambda value: value is None or isinstance(value, Algorithm),
    ),
    "backbone": (
        "a backbone such as MLP((64, 64))",
        lambda value: value is None or isinstance(value, Backbone),
    ),
    "schema": ("a Schema", lambda value: value is None or isinstance(value, Schema)),
    "shots": ("a pair (smallest, largest) of support sizes, the largest 1 or more", _is_shots),
    "score_shots": (
        "a tuple of one support size or more",
        lambda value: _are_whole(value, 0) and len(value) > 0,
    ),
    "max_queries": _count(1),
    "max_steps": _count(1),
    "batch_size": _count(1),
    "patience": _count(1),
    "chunk_size": (
        "a whole number, 1 or more, or None",
        lambda value: value is None or (_is_whole(value) and value >= 1),
    ),
    "compile": ("True or False", lambda value: isinstance(value, bool | np.bool_)),
    "learning_rate": ("a positive number", _positive),
    "inner_lr": ("a positive number", _positive),
    "max_inner_lr": ("a positive number", _positive),
    "max_inner_norm": (
        "a positive number or None",
        lambda value: value is None or _positive(value),
    ),
    "pseudo_count": _NOT_NEGATIVE,
    "first_order_share": (
        "from 0 to 1",
        lambda value: _is_number(value) and 0 <= value <= 1,
    ),
    "inner_steps": _count(1),
    **dict.fromkeys(("width", "base_width", "meta_width", "n_embedding", "n_features"), _count(1)),
    "hidden": (
        "a width, or a tuple of the widths of the layers, 1 or more each",
        lambda value: _are_whole(value if isinstance(value, tuple | list) else (value,), 1),
    ),
    "activation": (f"one of {', '.join(ACTIVATIONS)}", lambda value: value in tuple(ACTIVATIONS)),
    "n_deep": _count(0),
    "newton_steps": _count(1),
    "prior_count": _NOT_NEGATIVE,
    "weight_decay": _NOT_NEGATIVE,
    "validation_fraction": (
        "0 or more and below 1",
        lambda value: _is_number(value) and 0 <= value < 1,
    ),
    "outcome_transform": ("'log', 'sqrt' or None", lambda value: value in ("log", "sqrt", None)),
}
