"""Which levels have a column of their own, and how far each is shrunk towards the average."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from ehrmeta.data import Feature
from ehrmeta.data.coding import Coding, fit_levels, write_levels
from ehrmeta.errors import DataError

ARM = Feature("arm", "categorical")


def coded(
    sizes: dict[str, int], n_rows: int = 4, y: NDArray[np.float64] | None = None, **options: Any
) -> Coding:
    """Coding of a feature that is constant in patients, from patients by level."""
    arm = np.repeat(list(sizes), np.array(list(sizes.values())) * n_rows)
    patient = np.repeat(np.arange(sum(sizes.values())), n_rows)
    return fit_levels({"arm": pd.Categorical(arm)}, patient, y=y, **options)["arm"]


def encoded(coding: Coding, cells: list[str | None], *, shrink: bool = True) -> list[list[float]]:
    out = np.zeros((len(cells), len(coding.levels) + 1), np.float32)
    values = pd.Categorical(np.array(cells, object))
    write_levels(values, ARM, coding, out, shrink=shrink)
    return out.round(4).tolist()


def test_levels_of_few_patients_keep_their_columns() -> None:
    coding = coded({"a": 9, "b": 9, "c": 4})
    assert coding.levels == ("a", "b", "c")
    assert coding.merged == ()
    assert coding.shares == pytest.approx((9 / 22, 9 / 22, 4 / 22, 0))
    assert coding.weights == pytest.approx((9 / 10, 9 / 10, 4 / 5, 0))


def test_rows_to_predict_are_shrunk_and_rows_of_the_fit_are_not() -> None:
    coding = coded({"a": 30, "b": 6})
    assert encoded(coding, ["a", "b"], shrink=False) == [[1, 0, 0], [0, 1, 0]]
    weight, share = 6 / 7, 1 / 6
    shrunk = [(1 - weight) * (1 - share), weight + (1 - weight) * share, 0]
    assert encoded(coding, ["a", "b"]) == [[1, 0, 0], pytest.approx(shrunk, abs=1e-4)]


def test_levels_are_shrunk_as_random_effects() -> None:
    """The weight is n / (n + k), with k the variance within levels over that between them."""
    rng = np.random.default_rng(0)
    sizes = {f"level {i}": 9 for i in range(20)}
    level, patient = rng.normal(0, 2, 20), rng.normal(0, 1, 180)
    y = np.repeat(np.repeat(level, 9) + patient, 4)
    (weight,) = set(coded(sizes, y=y).weights[:-1])
    assert weight == pytest.approx(9 / (9 + 1 / 4), abs=0.02)
    (unrelated,) = set(coded(sizes, y=np.repeat(patient, 4)).weights[:-1])
    assert unrelated == pytest.approx(9 / 10, abs=0.01), "the average counts at most for one"
    (certain,) = set(coded(sizes, y=np.repeat(level, 36)).weights[:-1])
    assert 0.999 < certain < 1.0


def test_levels_of_one_or_two_patients_are_the_average_at_the_fit_too() -> None:
    coding = coded({"a": 30, "b": 9, "x": 1, "y": 1})
    assert (coding.levels, coding.merged) == (("a", "b"), ("x", "y"))
    assert encoded(coding, ["x"], shrink=False) == [pytest.approx(coding.shares, abs=1e-4)]


def test_merged_levels_share_a_column_if_they_are_three_patients() -> None:
    coding = coded({"a": 30, "b": 9, "x": 2, "y": 2})
    assert encoded(coding, ["x", "y"], shrink=False) == [[0, 0, 1]] * 2
    assert coding.weights[-1] == pytest.approx(4 / 5)


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ({f"{i:02}": 4 for i in range(20)}, 20),
        ({f"{i:02}": 4 for i in range(21)}, 0),  # too many levels, such as of free text
        ({f"{i:02}": 4 for i in range(20)} | {"z": 10}, 1),
        ({"a": 1000, "b": 9}, 1),  # under 1 %
        ({"a": 6, "b": 6, "c": 6}, 3),
    ],
    ids=["20 levels", "21 levels", "one large of 21", "one small", "three"],
)
def test_a_feature_of_many_levels_keeps_those_of_many_patients(
    sizes: dict[str, int], named: int
) -> None:
    assert len(coded(sizes, n_rows=1).levels) == named


def test_levels_of_all_features_leave_half_of_the_patients_free() -> None:
    patient = np.repeat(np.arange(24), 3)
    feature = {
        str(i): pd.Categorical(np.random.default_rng(i).permutation(np.arange(24) // 4)[patient])
        for i in range(3)
    }
    codings = fit_levels(feature, patient)
    assert [len(coding.levels) for coding in codings.values()] == [0, 0, 0], "18 levels of 4 each"
    assert len(fit_levels({"0": feature["0"]}, patient)["0"].levels) == 6


def test_levels_that_vary_in_patients_count_by_rows() -> None:
    """Six patients in three arms each: every arm has a column, and twelve rows."""
    arm, patient = np.tile(list("aabbcc"), 6), np.repeat(np.arange(6), 6)
    coding = fit_levels({"arm": pd.Categorical(arm)}, patient)["arm"]
    assert coding.levels == ("a", "b", "c")
    assert coding.weights[:3] == (1.0, 1.0, 1.0)
    assert coding.rare == (True, True, True), "they are six patients all the same"


def test_rows_are_patients_in_cohorts() -> None:
    arm = pd.Categorical(np.repeat(["a", "b", "c"], [40, 11, 9]))
    coding = fit_levels({"arm": arm}, None)["arm"]
    assert coding.weights[:3] == (1.0, 1.0, pytest.approx(0.9))
    assert coding.rare == (False, False, True)
    at_site = np.r_[np.arange(40) % 4, np.zeros(11), np.arange(9) % 4].astype(np.int64)
    assert fit_levels({"arm": arm}, None, sites=at_site)["arm"].rare == (False, True, True)
    assert not any(fit_levels({"arm": arm}, None, sites=0 * at_site)["arm"].rare[:2])


def test_ten_patients_are_a_full_column_but_are_not_named_in_files() -> None:
    coding = coded({"a": 30, "b": 11, "c": 10})
    assert coding.weights[:3] == (1.0, 1.0, 1.0)
    nameless, n = coding.without_rare_levels()
    assert (nameless.levels, n) == (("a", "b", None), 1)
    assert nameless.without_rare_levels() == (nameless, 0)
    assert nameless.hides_names
    assert not coding.hides_names


def test_merged_names_are_left_out_of_files() -> None:
    nameless, n = coded({"a": 30, "b": 2, "c": 2}).without_rare_levels()
    assert (nameless.merged, n) == ((), 2)
    assert nameless.hides_names


def test_a_column_without_any_value_has_no_level() -> None:
    coding = fit_levels({"arm": pd.Categorical([None, None])}, np.arange(2), y=np.zeros(2))["arm"]
    assert (coding.levels, coding.shares, coding.missing) == ((), (0.0,), True)


def test_a_coding_survives_json_and_one_of_numbers_is_short() -> None:
    coding = coded({"a": 30, "b": 9, "x": 1, "y": 1})
    assert Coding.from_dict(json.loads(json.dumps(coding.to_dict()))) == coding
    assert list(Coding(1.0, 2.0).to_dict()) == ["center", "scale", "levels", "missing"]


@pytest.mark.parametrize("part", [{"shares": [1.0]}, {"weights": [1.0]}, {"rare": [True, False]}])
def test_parts_of_other_lengths_are_refused(part: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="of 1 levels has another number of shares"):
        Coding.from_dict({"levels": ["a"]} | part)
