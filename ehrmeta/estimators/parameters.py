"""Hyper-parameters checked at fit, with one error that names what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, is_classifier, is_regressor

from ehrmeta.algorithms import Algorithm
from ehrmeta.data import Schema
from ehrmeta.errors import DataError
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


def _count(smallest: int) -> tuple[str, Any]:
    return (
        f"a whole number, {smallest} or more",
        lambda value: isinstance(value, int | np.integer) and value >= smallest,
    )


def _positive(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and bool(value > 0)


def _is_shots(value: Any) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(isinstance(k, int | np.integer) for k in value)
        and 0 <= value[0] <= value[1]
    )


_NOT_NEGATIVE: tuple[str, Any] = (
    "0 or more",
    lambda value: isinstance(value, int | float | np.number) and value >= 0,
)

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
    "shots": ("a pair (smallest, largest) of support sizes", _is_shots),
    "score_shots": (
        "a tuple of one support size or more",
        lambda value: isinstance(value, tuple | list) and len(value) > 0,
    ),
    "max_queries": _count(1),
    "max_steps": _count(1),
    "batch_size": _count(1),
    "patience": _count(1),
    "chunk_size": (
        "a whole number, 1 or more, or None",
        lambda value: value is None or (isinstance(value, int | np.integer) and value >= 1),
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
        lambda value: isinstance(value, int | float | np.number) and 0 <= value <= 1,
    ),
    "inner_steps": _count(1),
    "weight_decay": _NOT_NEGATIVE,
    "validation_fraction": (
        "0 or more and below 1",
        lambda value: isinstance(value, int | float | np.number) and 0 <= value < 1,
    ),
    "outcome_transform": ("'log', 'sqrt' or None", lambda value: value in ("log", "sqrt", None)),
}
