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


@dataclass(frozen=True, eq=False)
class Typed:
    number: float
    word: str | None
    flag: bool
    matrix: np.ndarray[Any, np.dtype[np.float64]]
    names: tuple[str, ...]


FITS = {"number": 1.5, "word": "w", "flag": True, "matrix": {"array": "m"}, "names": {"tuple": []}}


def typed(**changes):
    fields = {**FITS, **changes}
    plain = {"name": "", "class": "Typed", "fields": fields}
    tensors = {"m": torch.zeros(2).double(), "single": torch.zeros(2)}
    return read_state(tensors, plain, {"Typed": Typed})


@pytest.mark.parametrize(
    "right",
    [
        {"number": 2},
        {"number": {"number": "inf"}},
        {"word": None},
        {"flag": False},
        {"names": {"tuple": ["a", "b"]}},
    ],
)
def test_values_of_the_annotated_types_are_read(right):
    assert isinstance(typed(**right), Typed)


@pytest.mark.parametrize(
    "wrong",
    [
        {"number": True},
        {"number": "1"},
        {"number": None},
        {"word": 3},
        {"flag": 1},
        {"matrix": {"array": "single"}},
        {"matrix": {"tuple": [1.0]}},
        {"names": "ab"},
        {"names": {"tuple": ["a", 1]}},
    ],
)
def test_values_of_other_types_are_refused(wrong):
    with pytest.raises(BundleError, match="its Typed has wrong fields"):
        typed(**wrong)


def test_missing_fields_are_filled_by_their_defaults_only():
    tensors, plain = written_state(Leaf(np.ones(1), "a"), CLASSES)
    del plain["fields"]["limit"], plain["fields"]["model"]
    assert read_state(tensors, plain, CLASSES).limit == np.inf
    del plain["fields"]["kind"]
    with pytest.raises(BundleError, match="wrong fields"):
        read_state(tensors, plain, CLASSES)


def test_plain_values_and_arrays_come_back_with_their_types():
    value = (1, 2.5, "text", None, True, np.inf, -np.inf, np.float64(0.5), np.int64(3), [1, 2])
    tensors, plain = written_state(value, {})
    assert tensors == {}
    again = read_state(tensors, json.loads(json.dumps(plain)), {})
    assert again == (1, 2.5, "text", None, True, np.inf, -np.inf, 0.5, 3, (1, 2))
    arrays = [np.arange(2), np.array([True]), np.zeros((1, 2), np.float32), np.array(["a"], object)]
    tensors, plain = written_state(tuple(arrays), {})
    for array, found in zip(arrays, read_state(tensors, plain, {}), strict=True):
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


def test_trees_of_leaves_of_ten_rows_are_written():
    for n_rows in (10, 9):
        model = HistGradientBoostingRegressor(min_samples_leaf=n_rows, max_iter=1).fit(X, Y)
        if n_rows == 10:
            tensors, plain = written_state(tree(model), CLASSES)
            again = read_state(tensors, plain, CLASSES).first.model
            np.testing.assert_array_equal(again.predict(X), model.predict(X))
        else:
            with pytest.raises(BundleError, match="min_samples_leaf=9 .* Set 10 or more"):
                written_state(tree(model), CLASSES)
