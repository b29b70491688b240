"""Laws of dataclasses as tensors and JSON: what is read is what was written, or an error."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LinearRegression

from ehrmeta.data import Schema
from ehrmeta.errors import BundleError
from ehrmeta.persistence.records import read_state, written_state

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(200, 2)), RNG.normal(size=200)


@dataclass(frozen=True, eq=False)
class Leaf:
    weights: np.ndarray
    kind: Literal["a", "b"]
    limit: float = np.inf
    model: Any = None


@dataclass(frozen=True, eq=False)
class Tree:
    leaves: tuple[Leaf, ...]
    first: Leaf | None
    count: int


CLASSES = {"Leaf": Leaf, "Tree": Tree, "Schema": Schema}


def tree(model=None):
    leaf = Leaf(np.arange(3.0), "b", model=LinearRegression().fit(X, Y) if model is None else model)
    return Tree((leaf, Leaf(np.zeros((0, 2)), "a")), leaf, 2)


def test_dataclasses_come_back_with_what_they_share():
    tensors, plain = written_state(tree(), CLASSES)
    again = read_state(tensors, json.loads(json.dumps(plain)), CLASSES)
    assert again.first is again.leaves[0]
    assert (again.count, again.first.kind, again.first.limit) == (2, "b", np.inf)
    np.testing.assert_array_equal(again.first.weights, np.arange(3.0))
    expected = tree().first.model.predict(X)
    np.testing.assert_array_equal(again.first.model.predict(X), expected)
    assert written_state(again, CLASSES)[1] == plain


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "object cannot be saved"),
        (RandomForestRegressor(), "RandomForestRegressor cannot be saved"),
        (
            HistGradientBoostingRegressor(min_samples_leaf=3, max_iter=1).fit(X, Y),
            "its leaves could reveal single patients",
        ),
        (np.array(["a", None], dtype=object), "neither text nor numbers"),
    ],
)
def test_what_a_file_cannot_hold_is_refused(value, message):
    with pytest.raises(BundleError, match=message):
        written_state(tree(value), CLASSES)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("count", 2.5, "wrong fields"),
        ("count", True, "wrong fields"),
        ("first", {"tuple": [1, 2]}, "wrong fields"),
        ("first", {"name": "x", "class": "Path", "fields": {}}, "names the class 'Path'"),
        ("first", {"name": "x", "class": "Leaf", "fields": {"weights": 1}}, "wrong fields"),
        ("more", 1, "wrong fields"),
    ],
)
def test_forged_parts_are_refused(name, value, message):
    tensors, plain = written_state(tree(), CLASSES)
    plain["fields"][name] = value
    with pytest.raises(BundleError, match=message):
        read_state(tensors, plain, CLASSES)


def test_a_word_that_is_none_of_a_choice_is_refused():
    tensors, plain = written_state(Leaf(np.ones(1), "c"), CLASSES)
    with pytest.raises(BundleError, match="wrong fields"):
        read_state(tensors, plain, CLASSES)


def test_a_forged_model_is_refused_before_it_predicts():
    tensors, plain = written_state(tree(), CLASSES)
    (name,) = (name for name in tensors if name.endswith("/coef"))
    with pytest.raises(BundleError, match="do not fit together"):
        read_state(tensors | {name: torch.zeros(5).double()}, plain, CLASSES)
