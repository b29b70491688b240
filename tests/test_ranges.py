"""Ranges: what they hold, what they refuse, and where they are read from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest

from ehrmeta.algorithms import ALGORITHMS
from ehrmeta.errors import DataError
from ehrmeta.ranges import Choice, Range, check_level, declared_ranges


@pytest.mark.parametrize(
    ("low", "high", "log", "message"),
    [
        (2, 1, False, "empty"),
        (1, 1, False, "empty"),
        (0.0, 1.0, True, "log scale"),
        (1, float("inf"), False, "not finite"),
    ],
)
def test_a_range_without_a_number_is_refused(low, high, log, message):
    with pytest.raises(DataError, match=message):
        Range(low, high, log=log)


def test_whole_ends_make_whole_numbers():
    assert Range(1, 5).kind == "int"
    assert Range(1, 5.0).kind == "float"
    assert str(Range(1e-3, 1.0, log=True)) == "0.001 to 1, log scale"


def test_choices_are_distinguished_by_their_labels():
    assert str(Choice((True, "rbf"))) == "True | rbf"
    with pytest.raises(DataError, match="repeats"):
        Choice((1, 1))
    with pytest.raises(DataError, match="empty"):
        Choice(())


@dataclass
class Parent:
    """Two ranges and a parameter without one."""

    rate: Annotated[float, Range(0.1, 1.0)] = 0.5
    steps: Annotated[int, Range(1, 3)] = 1
    norm: float = 1.0


@dataclass
class Child(Parent):
    """Another range of one of them, and one of its own."""

    width: Annotated[int, Range(8, 64)] = 8
    steps: Annotated[int, Range(1, 9)] = 5


def test_a_child_inherits_ranges_and_may_replace_them():
    ranges = declared_ranges(Child)
    assert list(ranges) == ["rate", "steps", "width"]
    assert ranges["steps"] == Range(1, 9)
    assert ranges["rate"] == declared_ranges(Parent)["rate"]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_defaults_of_every_algorithm_are_in_their_ranges(name):
    algorithm = ALGORITHMS[name]()
    for parameter, declared in declared_ranges(type(algorithm)).items():
        default = getattr(algorithm, parameter)
        if isinstance(declared, Choice):
            assert default in declared.values
        else:
            assert declared.low <= default <= declared.high


@pytest.mark.parametrize("level", [0, 1, 1.5, float("nan")])
def test_a_level_lies_strictly_between_0_and_1(level):
    with pytest.raises(DataError, match="strictly between 0 and 1"):
        check_level(level)
